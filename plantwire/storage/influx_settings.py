"""Settings of the InfluxDB sink; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: one frozen `InfluxSettings`, built once in `main` and passed down.
Guarantees: settings that contradict each other, or lack what the others need, stop the start with their
names; no secret is in the text of an error.
Not here: settings that other processes read too (`platform.settings`).
"""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from plantwire.platform.settings import SharedSettings


class InfluxSettings(SharedSettings):
    """Where samples are written, and how fast."""

    # An address with a password in it is refused below, and must not be shown by the refusal.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    influx_url: str | None = Field(
        None, description="Where InfluxDB is, http:// or https://, without user; the sink is off without it."
    )
    influx_bucket: str | None = Field(None, description="InfluxDB 2: the bucket.")
    influx_org: str | None = Field(None, description="InfluxDB 2: its organisation.")
    influx_token: SecretStr | None = Field(None, description="InfluxDB 2: a token that may write to it.")
    influx_database: str | None = Field(None, description="InfluxDB 1: the database.")
    influx_retention_policy: str | None = Field(
        None, description="InfluxDB 1: the retention policy; by default the database's own."
    )
    influx_user: str | None = Field(None, description="InfluxDB 1: a user that may write to it.")
    influx_password: SecretStr | None = Field(None, description="InfluxDB 1: that user's password.")
    influx_measurement: str = Field(
        "telemetry", pattern=r"^[A-Za-z0-9_]{1,64}$", description="The measurement of every sample."
    )
    influx_group: str = Field(
        "plantwire-influx", min_length=1, description="Kafka consumer group; it remembers what was written."
    )
    influx_status_host: str = Field("127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    influx_status_port: int = Field(8083, ge=0, le=65535, description="Their port; 0 takes a free one.")
    influx_batch_ms: int = Field(
        500, ge=1, le=10_000, description="Longest time that samples are gathered for one request."
    )
    influx_batch_samples: int = Field(5_000, ge=1, le=100_000, description="Samples of one request.")
    influx_timeout_s: float = Field(10.0, gt=0, le=120, description="Time that InfluxDB has to answer.")
    influx_retry_max_s: float = Field(
        30.0, gt=0, le=300, description="Longest wait between two attempts while InfluxDB is away."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.influx_url is None:
            return self
        parts = urlsplit(self.influx_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("influx_url is no http:// or https:// address")
        if parts.username is not None or parts.password is not None:
            raise ValueError("influx_url names a user: that is for influx_user and influx_password")
        if (self.influx_bucket is None) == (self.influx_database is None):
            raise ValueError(
                "either influx_bucket (InfluxDB 2) or influx_database (InfluxDB 1) has to be set"
            )
        if self.influx_bucket is not None and self.influx_org is None:
            raise ValueError("influx_bucket needs influx_org")
        if (self.influx_user is None) != (self.influx_password is None):
            raise ValueError("influx_user and influx_password belong together")
        return self
