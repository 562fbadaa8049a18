"""Settings of HTTP beyond its address and bounds: how much each client may send, and hold.

In: the environment. Out: fields of `GatewaySettings`.
Not here: what they bring about (`http_gate`, `http_connections`).
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HttpSettings(BaseSettings):
    """Rate limits, and bounds on connections."""

    model_config = SettingsConfigDict(env_prefix="PLANTWIRE_", extra="ignore", frozen=True)

    gateway_rate_limit_frames_per_s: float = Field(
        5000.0, ge=0, description="Frames per second of one HTTP client, in the long run; 0 for no limit."
    )
    gateway_rate_limit_burst_frames: int = Field(
        20_000, ge=1, description="Frames that an HTTP client may send at once before its rate counts."
    )
    gateway_auth_failures_per_min: int = Field(
        300, ge=0, description="Invalid tokens per minute from one address; beyond it 429. 0 for no limit."
    )
    gateway_header_timeout_s: float = Field(
        10.0, gt=0, description="Time a connection has to send a request's header; then it is closed."
    )
    gateway_connections_per_address_max: int = Field(
        1000,
        ge=0,
        description="Connections of one address (IPv6: one /64), not the loopback one; 0 for no limit.",
    )
