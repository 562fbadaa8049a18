"""Settings of the jobs, read where a job is submitted."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from plantwire.platform.settings import LiveSettings


class JobSettings(LiveSettings):
    """What a job takes along when it is submitted."""

    scoring_file: Path | None = Field(
        None, description="YAML file of the metrics that get anomaly scores; none do where unset."
    )
    patterns: Path | None = Field(
        None,
        description="YAML file of telemetry patterns, or folder of such; none are watched for where unset.",
    )
