"""The gateway as a process: what edge nodes see of it when it starts, stops, is killed and comes back."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.gateway_rig import GatewayProcess, Topic, frames_of
from tests.integration.gateway.sparkplug.conftest import NodeMaker
from tests.integration.gateway.sparkplug.test_sparkplug_independent_node import (
    MOTOR,
    NODE,
    await_metrics,
    is_value,
    reasons_of,
    temperature,
)
from tests.integration.gateway.sparkplug.witness import Seen, Witness

HOST_ID = "plant-process"
STATE = f"spBv1.0/STATE/{HOST_ID}"


@pytest.fixture
def gateway_process(kafka: str, mqtt_url: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway, not started."""
    process = GatewayProcess(
        kafka,
        mqtt_url,
        tmp_path / "gateway.log",
        PLANTWIRE_SPARKPLUG_HOST_ID=HOST_ID,
        PLANTWIRE_SPARKPLUG_REBIRTH_INTERVAL_S="0.5",
    )
    yield process
    process.stop()


@pytest.fixture
def retained_state(mqtt_url: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """What an edge node finds when it subscribes STATE now."""
    with ExitStack() as ending:

        def subscribe() -> dict[str, Any]:
            witness = Witness(mqtt_url)
            witness.start()
            ending.callback(witness.close)
            said: dict[str, Any] = json.loads(witness.wait_for_retained(STATE).payload)
            return said

        yield subscribe


def states(seen: list[Seen]) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in seen]


@pytest.mark.sparkplug(
    "tck-id-intro-sparkplug-host-state",
    "tck-id-components-ph-state",
    "tck-id-conformance-primary-host",
    "tck-id-host-topic-phid-birth-retain",
    "tck-id-host-topic-phid-death-retain",
    "tck-id-host-topic-phid-death-payload-timestamp-connect",
    "tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean",
    "tck-id-message-flow-hid-sparkplug-state-message-delivered",
)
def test_state_tells_whether_the_gateway_is_there(
    gateway_process: GatewayProcess, witness: Witness, retained_state: Callable[[], dict[str, Any]]
) -> None:
    gateway_process.start()
    gateway_process.wait_ready(30)
    online = retained_state()
    assert online["online"] is True
    assert abs(online["timestamp"] - time.time() * 1000) < 30_000

    # A death of an earlier connection that comes late.
    witness.publish(STATE, b'{"online":false,"timestamp":1}', qos=1, retain=True)
    witness.wait_for(STATE, lambda seen: len(seen) >= 3 and states(seen)[-1] == online)
    assert retained_state() == online

    stopped_ms = int(time.time() * 1000)
    assert gateway_process.end(signal.SIGTERM) == 0
    offline = retained_state()
    assert offline["online"] is False
    assert stopped_ms <= offline["timestamp"] <= time.time() * 1000

    gateway_process.start()
    gateway_process.wait_ready(30)
    online = retained_state()
    assert online["online"] is True
    gateway_process.end(signal.SIGKILL)
    # Nobody is left to say it: the broker publishes the will, with the time stamp of that connection.
    witness.wait_for(STATE, lambda seen: not states(seen)[-1]["online"])
    assert retained_state() == {"online": False, "timestamp": online["timestamp"]}


def test_edge_nodes_that_live_on_are_known_again_after_the_gateway_was_killed(
    gateway_process: GatewayProcess,
    make_node: NodeMaker,
    group: str,
    raw: Topic,
    dlq: Topic,
    witness: Witness,
) -> None:
    gateway_process.start()
    gateway_process.wait_ready(30)
    node = make_node(group, "Press", NODE, devices={"Motor": MOTOR})
    node.connect()
    device_id = f"{group}:Press:Motor"
    await_metrics(raw, device_id, is_value("Temperature", 20.5))
    gateway_process.end(signal.SIGKILL)
    node.data("Motor", temperature(40.0))  # nobody hears it: QoS 0 and no session
    gateway_process.start()
    gateway_process.wait_ready(30)
    assert witness.of(f"spBv1.0/{group}/NCMD/Press") == []
    node.data("Motor", temperature(41.0))
    # By its alias alone it says nothing; the node is asked, and answers.
    assert reasons_of(dlq, f"sparkplug:spBv1.0/{group}/DDATA/Press/Motor") == ["not-born"]
    witness.wait_for(f"spBv1.0/{group}/NCMD/Press")
    witness.wait_for(f"spBv1.0/{group}/DBIRTH/Press/Motor", lambda seen: len(seen) == 2)
    node.data("Motor", temperature(42.0))
    await_metrics(raw, device_id, is_value("Temperature", 42.0))
    values = [
        m.number for f in frames_of(raw.messages, device_id) for m in f.metrics if m.name == "Temperature"
    ]
    assert values == [20.5, 20.5, 42.0]
