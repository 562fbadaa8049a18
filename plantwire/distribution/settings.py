"""Settings of the distribution process: environment variables PLANTWIRE_DISTRIBUTION_<NAME>.

In: the environment. Out: one frozen object, built once in `main`.
Guarantees: every value is in its permitted range, or the start fails with the reason.
Not here: where Redis and the database are and how tokens are signed (`platform.settings.SharedSettings`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from plantwire.schemas.tiers import DAY_MS, TIERS

DASHBOARD_FOLDER = Path(__file__).parent / "web" / "dist"


class DistributionSettings(BaseSettings):
    """How clients are served."""

    model_config = SettingsConfigDict(env_prefix="PLANTWIRE_DISTRIBUTION_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    origins: tuple[str, ...] = Field(
        (),
        description="Origins a browser may connect from, a JSON list, compared exactly; "
        "by default http://127.0.0.1:<port> and http://localhost:<port>.",
    )
    clients_max: int = Field(
        5000, ge=1, description='Clients of this process; the next is refused with "Server at capacity".'
    )
    connect_timeout_s: float = Field(
        5.0, gt=0, description="Time a WebSocket has to present a valid token before it is closed."
    )
    ping_interval_s: float = Field(15.0, gt=0, description="Engine.IO ping interval.")
    ping_timeout_s: float = Field(
        20.0, gt=0, description="Time without an answer after which a client is gone."
    )
    message_max_bytes: int = Field(65536, ge=1024, description="Largest message taken from a client.")
    backlog_max_bytes: int = Field(
        1024 * 1024,
        ge=65536,
        description="Bytes that may wait for a client before it is disconnected as slow.",
    )
    socket_buffer_bytes: int = Field(
        256 * 1024,
        ge=4096,
        description="Send buffer of the kernel per client, so that a slow client is noticed early.",
    )
    telemetry_flush_ms: float = Field(
        25.0,
        ge=0,
        le=1000,
        description="Telemetry that arrives within this time is written to a client at once.",
    )
    telemetry_pending_max: int = Field(
        20000,
        ge=1,
        description="Telemetry messages that may wait for the next flush; beyond, the oldest are dropped.",
    )
    presence_expiry_s: int = Field(90, ge=3, description="Life of a presence entry in Redis without refresh.")
    history_connections_max: int = Field(
        4, ge=1, le=100, description="Connections to the database, for history, at most."
    )
    history_waiting_max: int = Field(
        32, ge=1, description="Requests for history that may wait for one; the next is answered with 503."
    )
    history_wait_s: float = Field(2.0, gt=0, description="Time that a request for history may wait for one.")
    history_statement_timeout_s: float = Field(
        5.0, ge=0.01, le=600, description="Time that the database may take for one request."
    )
    history_page_max: int = Field(
        10_000, ge=1, le=100_000, description="Points of one answer; further ones come page by page."
    )
    dashboard: Path = Field(DASHBOARD_FOLDER, description="Folder of the built dashboard.")

    def allowed_origins(self, port: int) -> list[str]:
        """The origins in force, given the port that is really listened on."""
        return list(self.origins) or [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]


class KeptSettings(BaseSettings):
    """How long each tier is kept, 0 for ever: storage's settings, read here to choose among the tiers."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    raw_days: int = Field(8, ge=0, validation_alias="PLANTWIRE_STORAGE_KEEP_RAW_DAYS")
    second_days: int = Field(7, ge=0, validation_alias="PLANTWIRE_STORAGE_KEEP_1S_DAYS")
    minute_days: int = Field(30, ge=0, validation_alias="PLANTWIRE_STORAGE_KEEP_1M_DAYS")
    hour_days: int = Field(365, ge=0, validation_alias="PLANTWIRE_STORAGE_KEEP_1H_DAYS")
    day_days: int = Field(0, ge=0, validation_alias="PLANTWIRE_STORAGE_KEEP_1D_DAYS")

    def by_tier(self) -> dict[str, int | None]:
        """ms by the tier's name; None for ever."""
        days = (self.raw_days, self.second_days, self.minute_days, self.hour_days, self.day_days)
        return {tier.name: kept * DAY_MS if kept else None for tier, kept in zip(TIERS, days, strict=True)}
