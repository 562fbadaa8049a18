"""Settings of the light engine; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: one frozen `LightSettings` per process, built once in `main` and passed down.
Not here: settings that other processes read too (`platform.settings`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from plantwire.platform.settings import LiveSettings, default_home


class LightSettings(LiveSettings):
    """Where the engine keeps its state, and how often."""

    light_folder: Path = Field(
        default_factory=lambda: default_home() / "light",
        description="Folder of the light engine's state, a file for each of its processes.",
    )
    light_host: str = Field("127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    light_detection_port: int = Field(8084, ge=0, le=65535, description="Port of the detection's; 0: any.")
    light_live_port: int = Field(8085, ge=0, le=65535, description="Port of the live picture's; 0: any.")
    light_group: str | None = Field(
        None,
        min_length=1,
        description="Kafka consumer group that is told how far frames are taken; where unset that of the "
        "Flink job of the same name, so that one engine goes on where the other was.",
    )
    light_save_ms: int = Field(
        1000, ge=50, le=60_000, description="At most so much is done again after a process was killed."
    )
