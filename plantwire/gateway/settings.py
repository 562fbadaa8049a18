"""Settings of the gateway process; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: one frozen `GatewaySettings`, built once in `main` and passed down.
Guarantees: a value out of range stops the start with its name.
Not here: settings that other processes read too (`platform.settings`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from plantwire.gateway.buffer.settings import BufferSettings
from plantwire.gateway.chirpstack.settings import ChirpstackSettings
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from plantwire.gateway.http_settings import HttpSettings
from plantwire.gateway.reporting_settings import ReportingSettings
from plantwire.gateway.sparkplug.settings import SparkplugSettings
from plantwire.platform.settings import SharedSettings


class GatewaySettings(
    BufferSettings,
    HttpSettings,
    ReportingSettings,
    ChirpstackSettings,
    SparkplugSettings,
    EdgeAlarmSettings,
    SharedSettings,
):
    """Where the gateway listens, what it takes at most, and how long it waits."""

    gateway_host: str = Field("127.0.0.1", description="Address that HTTP listens on.")
    gateway_port: int = Field(8080, ge=1, le=65535, description="Port that HTTP listens on.")
    gateway_connections_max: int = Field(4000, ge=1, description="Open HTTP connections; more get 503.")
    gateway_body_limit_bytes: int = Field(
        1024 * 1024, ge=1, le=16 * 1024 * 1024, description="Largest HTTP body or MQTT payload."
    )
    gateway_body_memory_bytes: int = Field(
        64 * 1024 * 1024, ge=1, description="All HTTP bodies in memory together; beyond it 503."
    )
    gateway_body_timeout_s: float = Field(10.0, gt=0, description="Time a client has to send its body.")
    gateway_metrics_per_frame_max: int = Field(1000, ge=1, le=10_000, description="Metrics in one frame.")
    gateway_frames_per_request_max: int = Field(
        1000, ge=1, le=10_000, description="Frames in one HTTP request or MQTT message."
    )
    gateway_metrics_per_request_max: int = Field(
        20_000, ge=1, le=1_000_000, description="Metrics in one HTTP request or MQTT message."
    )
    gateway_time_ahead_max_ms: int = Field(
        60_000, ge=0, le=60_000, description="How far a time stamp may be ahead of the gateway's clock."
    )
    gateway_in_flight_max: int = Field(
        10_000, ge=1, description="Frames handed to Kafka and not yet acknowledged; beyond it to the buffer."
    )
    gateway_in_flight_bytes_max: int = Field(
        64 * 1024 * 1024, ge=1024 * 1024, description="The same bound in bytes."
    )
    gateway_ack_timeout_ms: int = Field(
        5000, ge=100, le=300_000, description="Time Kafka has to acknowledge; then the buffer."
    )
    gateway_linger_ms: float = Field(
        0.0, ge=0, le=1000, description="Time that Kafka's producer waits to fill a batch."
    )
    gateway_drain_timeout_s: float = Field(
        10.0, gt=0, description="Time that requests and messages in hand have to finish at SIGTERM."
    )
    gateway_mqtt_in_flight_max: int = Field(
        1000, ge=1, description="MQTT messages in hand; at the bound the gateway stops reading its socket."
    )
    gateway_mqtt_backoff_max_s: float = Field(
        30.0, gt=0, description="Longest wait between two attempts to reach the MQTT broker."
    )
    gateway_mqtt_duplicate_window_s: float = Field(
        600.0, ge=0, description="How long a message that names itself is known as forwarded."
    )
    gateway_mqtt_duplicates_max: int = Field(
        100_000, ge=1, le=10_000_000, description="How many such messages are remembered."
    )
    gateway_mqtt_keepalive_s: int = Field(30, ge=5, le=65535, description="MQTT keep-alive.")
    mqtt_client_id: str = Field(
        "plantwire-gateway",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="MQTT client id; stable, since the broker keeps messages for it. One per gateway.",
    )
    mqtt_username: str | None = Field(None, description="MQTT user; goes before one in the URL.")
    mqtt_password: SecretStr | None = Field(None, description="MQTT password; goes before one in the URL.")
    mqtt_tls_ca: Path | None = Field(
        None, description="PEM file of authorities for mqtts://; the system's where unset."
    )
    mqtt_tls_cert: Path | None = Field(
        None, description="PEM file with our certificate for mqtts://, where the broker wants one."
    )
    mqtt_tls_key: Path | None = Field(
        None, description="PEM file with its key, without a password; unset: it is in the certificate's file."
    )

    @model_validator(mode="after")
    def _a_full_request_fits(self) -> Self:
        if self.gateway_in_flight_max < self.gateway_frames_per_request_max:
            raise ValueError(
                "PLANTWIRE_GATEWAY_IN_FLIGHT_MAX is below PLANTWIRE_GATEWAY_FRAMES_PER_REQUEST_MAX: "
                "a full request could never be accepted"
            )
        if self.gateway_metrics_per_request_max < self.gateway_metrics_per_frame_max:
            raise ValueError(
                "PLANTWIRE_GATEWAY_METRICS_PER_REQUEST_MAX is below PLANTWIRE_GATEWAY_METRICS_PER_FRAME_MAX: "
                "a full frame could never be accepted"
            )
        if self.gateway_body_memory_bytes < self.gateway_body_limit_bytes:
            raise ValueError(
                "PLANTWIRE_GATEWAY_BODY_MEMORY_BYTES is below PLANTWIRE_GATEWAY_BODY_LIMIT_BYTES: "
                "a full body could never be accepted"
            )
        return self

    @model_validator(mode="after")
    def _a_key_has_its_certificate(self) -> Self:
        if self.mqtt_tls_key is not None and self.mqtt_tls_cert is None:
            raise ValueError("PLANTWIRE_MQTT_TLS_KEY is set without PLANTWIRE_MQTT_TLS_CERT")
        return self

    def decode_limits(self) -> DecodeLimits:
        """What the decoder takes at most."""
        return DecodeLimits(
            metrics_per_frame_max=self.gateway_metrics_per_frame_max,
            frames_max=self.gateway_frames_per_request_max,
            time_ahead_max_ms=self.gateway_time_ahead_max_ms,
            metrics_max=self.gateway_metrics_per_request_max,
        )
