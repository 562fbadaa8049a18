"""Settings of durability: when to buffer, where, how much, and how fast to drain.

In: the environment. Out: fields of the gateway's one settings object, which inherits them.
Not here: what they bring about (`durability`, `edge_buffer`, `drain`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings

from plantwire.platform.settings import default_home


class BufferSettings(BaseSettings):
    """The edge buffer's part of the gateway's settings."""

    gateway_spill_after_ms: int = Field(
        1000, ge=50, le=60_000, description="Kafka silent for so long: what is in hand goes to the buffer."
    )
    gateway_drain_frames_per_s: int = Field(
        2000, ge=1, le=1_000_000, description="How fast buffered frames follow once Kafka is back."
    )
    gateway_drain_batch: int = Field(
        500, ge=1, le=10_000, description="Buffered frames sent together at most."
    )
    gateway_buffer_folder: Path | None = Field(
        None, description="Folder of the edge buffer, one gateway per folder; gateway/ in PLANTWIRE_HOME."
    )
    gateway_buffer_max_bytes: int = Field(
        1024**3, ge=1024**2, description="Disk that the edge buffer takes at most."
    )
    gateway_buffer_max_age_h: float = Field(
        168.0, gt=0, description="Buffered telemetry that is older is dropped and counted."
    )
    gateway_buffer_waiting_max_bytes: int = Field(
        64 * 1024 * 1024, ge=1024**2, description="What may wait in memory for the buffer's disk."
    )
    gateway_record_age_max_h: float = Field(
        24.0, gt=0, description="Kafka's time stamp of a record is at most so old: retention goes by it."
    )

    def buffer_folder(self) -> Path:
        """Where the buffer is."""
        return self.gateway_buffer_folder or default_home() / "gateway"
