"""Settings of report by exception.

In: the environment. Out: fields of `GatewaySettings`, which inherits this class.
Not here: the file's form (`reporting_file`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ReportingSettings(BaseSettings):
    """Whether values that say nothing new are left out."""

    model_config = SettingsConfigDict(env_prefix="PLANTWIRE_", extra="ignore", frozen=True)

    gateway_reporting_file: Path | None = Field(
        None, description="YAML file of deadbands; where unset every value is sent on."
    )
    gateway_reporting_metrics_max: int = Field(
        500_000, ge=1, description="Metrics of all devices whose last value is remembered."
    )
