"""What the settings say to the host and to the sessions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plantwire.gateway.settings import GatewaySettings
from plantwire.gateway.sparkplug.host import limits_of, topic_filters
from plantwire.gateway.sparkplug.outcome import SparkplugLimits


@pytest.mark.sparkplug("tck-id-operational-behavior-host-reordering-param")
def test_bounds_and_times_go_to_the_sessions() -> None:
    limits = limits_of(
        GatewaySettings(
            sparkplug_reorder_timeout_ms=1234,
            sparkplug_rebirth_interval_s=0.5,
            sparkplug_edge_nodes_max=7,
            gateway_body_limit_bytes=4096,
            gateway_metrics_per_frame_max=50,
            gateway_time_ahead_max_ms=99,
        )
    )
    assert (limits.reorder_timeout_ms, limits.rebirth_first_ms, limits.edge_nodes_max) == (1234, 500, 7)
    assert (limits.payload_bytes_max, limits.metrics_per_frame_max, limits.time_ahead_max_ms) == (
        4096,
        50,
        99,
    )


def test_the_defaults_are_those_of_the_sessions() -> None:
    assert limits_of(GatewaySettings()) == SparkplugLimits()


@pytest.mark.parametrize(
    ("groups", "filters"),
    [
        ("", ("spBv1.0/#",)),
        (" , ", ("spBv1.0/#",)),
        ("Plant 1, Hall", ("spBv1.0/Plant 1/#", "spBv1.0/Hall/#")),
    ],
)
def test_groups(groups: str, filters: tuple[str, ...]) -> None:
    assert topic_filters(GatewaySettings(sparkplug_groups=groups).sparkplug_group_list()) == filters


@pytest.mark.parametrize("groups", ["a/b", "+", "Plant,#", "a\0b"])
def test_a_group_that_is_no_topic_level_stops_the_start(groups: str) -> None:
    with pytest.raises(ValidationError, match="sparkplug_groups"):
        GatewaySettings(sparkplug_groups=groups)


@pytest.mark.parametrize("host_id", ["a/b", "a b", "#", "x" * 65])
def test_a_host_id_that_is_no_topic_level_stops_the_start(host_id: str) -> None:
    with pytest.raises(ValidationError, match="sparkplug_host_id"):
        GatewaySettings(sparkplug_host_id=host_id)
