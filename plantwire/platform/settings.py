"""Settings that more than one process reads. Each comes from the environment variable PLANTWIRE_<NAME>.

A process subclasses `SharedSettings`, builds it once in its `main` and passes it down.
Not here: what a single process needs (its own `settings.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_home() -> Path:
    """Where data, logs and secrets live: PLANTWIRE_HOME, or plantwire/ in the user's data folder."""
    if home := os.environ.get("PLANTWIRE_HOME"):
        return Path(home).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return (Path(data).expanduser() / "plantwire").resolve()


class SharedSettings(BaseSettings):
    """Where the servers are and who may speak to them."""

    model_config = SettingsConfigDict(env_prefix="PLANTWIRE_", extra="ignore", frozen=True)

    kafka: str = Field("127.0.0.1:9092", description="Kafka bootstrap servers, host:port[,host:port].")
    redis: str = Field("redis://127.0.0.1:6379/0", description="Redis URL.")
    database: str = Field(
        "postgresql://plantwire@127.0.0.1:5432/plantwire", description="PostgreSQL (TimescaleDB) URL."
    )
    mqtt: str = Field("mqtt://127.0.0.1:1883", description="MQTT broker URL, mqtt:// or mqtts://.")
    flink: str = Field("http://127.0.0.1:8081", description="Flink REST endpoint.")
    token_secret: SecretStr | None = Field(
        None, description="Key that signs access tokens (HS256), 32 bytes or more; generated on first start."
    )
    token_issuer: str = Field("plantwire", description="`iss` that a token must carry.")
    token_audience: str = Field("plantwire", description="`aud` that a token must carry.")
    log_level: str = Field("info", description="debug, info, warning or error.")

    def require_token_secret(self) -> str:
        """The signing key; raises SystemExit with advice where none is set."""
        if self.token_secret is None:
            raise SystemExit(
                "PLANTWIRE_TOKEN_SECRET is not set. `plantwire up` generates one; "
                "set it to 32 random bytes or more when a process is started by hand."
            )
        return self.token_secret.get_secret_value()


class LiveSettings(SharedSettings):
    """What the engines, Flink's jobs and the light one, have in common."""

    live_interval_ms: int = Field(
        1000, ge=50, le=60_000, description="At most one live telemetry message per device in this time."
    )
