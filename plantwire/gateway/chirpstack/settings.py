"""Settings of the ChirpStack source, part of `GatewaySettings`.

In: the environment. Out: `ChirpstackSettings`. Not here: the broker (`gateway.settings`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ChirpstackSettings(BaseSettings):
    """Where ChirpStack publishes and what decodes bytes that it leaves as they are."""

    model_config = SettingsConfigDict(env_prefix="PLANTWIRE_", extra="ignore", frozen=True)

    chirpstack_enabled: bool = Field(True, description="Subscribe to ChirpStack's events.")
    chirpstack_topic_prefix: str = Field(
        "",
        max_length=256,
        pattern=r"^[^+#\x00-\x1f\x7f]*$",
        description="What goes before application/ in ChirpStack's event_topic, slash included.",
    )
    chirpstack_codecs_file: Path | None = Field(
        None, description="YAML file that names a codec for each device profile."
    )
