"""Settings of the Sparkplug host application.

In: the environment. Out: fields of `GatewaySettings`, which inherits them.
Not here: the broker and its credentials, which plain MQTT shares (`gateway.settings`).
"""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class SparkplugSettings(BaseSettings):
    """Who we are to edge nodes, which of them we serve, and how patient we are."""

    sparkplug_host_id: str = Field(
        "plantwire",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="Sparkplug host id, one per gateway; empty: no Sparkplug.",
    )
    sparkplug_groups: str = Field(
        "",
        max_length=4096,
        description="Sparkplug groups to serve, separated by commas; all where empty.",
    )
    sparkplug_reorder_timeout_ms: int = Field(
        2000,
        ge=0,
        le=600_000,
        description="Time that a message missing in the sequence has to arrive; then a rebirth is requested.",
    )
    sparkplug_rebirth_interval_s: float = Field(
        5.0,
        ge=0.1,
        le=3600,
        description="Shortest time between two rebirth requests to one edge node; doubles up to 5 minutes.",
    )
    sparkplug_rebirths_per_s: float = Field(
        50.0, ge=0.1, le=10_000, description="Rebirth requests in a second, to all edge nodes together."
    )
    sparkplug_edge_nodes_max: int = Field(
        2000, ge=1, le=1_000_000, description="Edge nodes that are followed; messages of more are refused."
    )
    sparkplug_silent_forget_h: float = Field(
        168.0,
        ge=0.1,
        le=87_600,
        description="An edge node silent for so long is asked for its births, and forgotten if none come.",
    )

    @field_validator("sparkplug_groups")
    @classmethod
    def _groups_are_topic_levels(cls, groups: str) -> str:
        if any(unfit in groups for unfit in "+#/\0"):
            raise ValueError("a Sparkplug group contains none of + # / and NUL")
        return groups

    def sparkplug_group_list(self) -> tuple[str, ...]:
        """The groups to serve; none: all."""
        return tuple(group.strip() for group in self.sparkplug_groups.split(",") if group.strip())
