"""Edge node sessions and what they said, for the tests of the simulated edge node."""

from __future__ import annotations

import json
from collections.abc import Iterable

from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.sparkplug.payload import MetricSpec
from plantwire.simulator.sparkplug.session import Action, EdgeNodeSession, Phase, Publish

NOW = 1_700_000_000_000
NODE = (MetricSpec("uptime_s", pb.UInt64),)
PRESS = (
    MetricSpec("temperature", pb.Double),
    MetricSpec("setpoint", pb.Int32, is_writable=True),
    MetricSpec("is_open", pb.Boolean),
)
HOST = "scada"
STATE = f"spBv1.0/STATE/{HOST}"


def node(primary_host: str | None = None) -> EdgeNodeSession:
    return EdgeNodeSession("g", "n", NODE, {"press-1": PRESS, "press-2": PRESS}, primary_host)


def born(primary_host: str | None = None) -> EdgeNodeSession:
    session = node(primary_host)
    session.connect(NOW)
    session.subscribed(NOW)
    if primary_host is not None:
        session.receive(STATE, state(online=True, at_ms=NOW), NOW)
    assert session.phase is Phase.ONLINE
    return session


def state(*, online: bool, at_ms: int) -> bytes:
    return json.dumps({"online": online, "timestamp": at_ms}).encode()


def published(actions: Iterable[Action]) -> list[Publish]:
    return [action for action in actions if isinstance(action, Publish)]


def topics(actions: Iterable[Action]) -> list[str]:
    return [message.topic.removeprefix("spBv1.0/g/") for message in published(actions)]


def payload_of(message: Publish) -> pb.Payload:
    return pb.Payload.FromString(message.payload)


def metric(payload: pb.Payload, name: str) -> pb.Payload.Metric:
    (found,) = (m for m in payload.metrics if m.name == name)
    return found


def command(*, name: str | None = None, alias: int | None = None, **value: object) -> bytes:
    payload = pb.Payload(timestamp=NOW)
    payload.metrics.add(name=name, alias=alias, **value)  # type: ignore[arg-type]
    return payload.SerializeToString()
