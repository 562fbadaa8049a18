"""An edge node by an implementation that is not ours: pysparkplug. Run by the interpreter of .venv-sparkplug.

In: commands on stdin, one JSON object a line. Out: events on stdout, one JSON object a line; every command
is answered by `{"done": <command>}` or `{"failed": <why>}`.
What pysparkplug 0.6.1 does itself: connecting, the will, births with names and aliases, seq, device births
and deaths, decoding commands. What it leaves out and is built here of its own payload classes: data by alias
alone (its `update` wants names), the answer to a rebirth request, a clean NDEATH (its `disconnect` sends
the bdSeq of the next session), messages out of sequence.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from pysparkplug import (
    Client,
    DataType,
    DBirth,
    DData,
    Device,
    EdgeNode,
    Message,
    MessageType,
    Metric,
    NBirth,
    NData,
    NDeath,
    QoS,
    Topic,
)

_output = threading.Lock()


def tell(**event: Any) -> None:
    with _output:
        print(json.dumps(event), flush=True)


def metric_of(description: dict[str, Any]) -> Metric:
    return Metric(
        timestamp=description.get("timestamp", int(time.time() * 1000)),
        name=description.get("name"),
        datatype=DataType[description["datatype"]],
        value=description.get("value"),
        alias=description.get("alias"),
        is_historical=description.get("historical", False),
        is_transient=description.get("transient", False),
    )


class Node:
    """The edge node and what was held back of its messages."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self._answers_rebirth = definition.get("answers_rebirth", True)
        self._held: list[Message] = []
        self._born = threading.Event()
        self._client = Client(client_id=definition["client_id"])
        self._node = EdgeNode(
            definition["group"],
            definition["node"],
            [metric_of(m) for m in definition["metrics"]],
            self._client,
            cmd_callback=lambda _node, message: self._handle_command("NCMD", None, message),
        )
        for device_id, metrics in definition.get("devices", {}).items():
            self._node.register(self._device(device_id, metrics))
        for _ in range(definition.get("sessions_before", 0)):
            self._node._bd_seq  # noqa: B018 - reading it is what moves it on

    def _device(self, device_id: str, metrics: list[dict[str, Any]]) -> Device:
        return Device(
            device_id,
            [metric_of(m) for m in metrics],
            cmd_callback=lambda _node, message: self._handle_command("DCMD", device_id, message),
        )

    def _handle_command(self, verb: str, device_id: str | None, message: Message) -> None:
        metrics = message.payload.metrics
        tell(
            event=verb,
            device=device_id,
            qos=int(message.qos),
            retain=bool(message.retain),
            timestamp=message.payload.timestamp,
            metrics=[{"name": m.name, "alias": m.alias, "value": m.value} for m in metrics],
        )
        rebirth = any(m.name == "Node Control/Rebirth" and m.value is True for m in metrics)
        if rebirth and self._answers_rebirth:
            self.publish_births()

    def connect(self, host: str, port: int) -> None:
        """Connect, and be born: the library publishes all births when the broker accepts the connection."""
        connected = self._client.connect

        def connect_and_tell(*arguments: Any, callback: Any, **options: Any) -> None:
            def born(client: Client) -> None:
                self._bd_seq_metric = self._node._bd_seq_metric
                callback(client)
                self._born.set()

            connected(*arguments, callback=born, **options)

        self._client.connect = connect_and_tell  # type: ignore[method-assign]
        self._node.connect(host, port=port, keepalive=5)
        if not self._born.wait(10):
            raise TimeoutError("the broker did not accept the connection")

    def publish_births(self) -> None:
        """All births again, in the same session."""
        node = self._node
        node._EdgeNode__seq_cycler = iter_sequence()
        metrics = (*node.metrics.values(), self._bd_seq_metric)
        self._publish("NBIRTH", None, NBirth(now_ms(), node._seq, metrics))
        for device_id, device in node.devices.items():
            birth = DBirth(now_ms(), node._seq, tuple(device.metrics.values()))
            self._publish("DBIRTH", device_id, birth)

    def data(self, device_id: str | None, metrics: list[dict[str, Any]], hold: bool) -> None:
        """A data message of exactly these metrics; held back, its number is used all the same."""
        payload_type = NData if device_id is None else DData
        payload = payload_type(now_ms(), self._node._seq, tuple(metric_of(m) for m in metrics))
        verb = "NDATA" if device_id is None else "DDATA"
        if hold:
            self._held.append(self._message(verb, device_id, payload))
        else:
            self._publish(verb, device_id, payload)

    def release(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            self._client.publish(message)

    def device_birth(self, device_id: str, metrics: list[dict[str, Any]]) -> None:
        self._node.register(self._device(device_id, metrics))

    def device_death(self, device_id: str) -> None:
        self._node.deregister(device_id)

    def death(self, bd_seq: int | None) -> None:
        """Publish an NDEATH: of this session, or with a bdSeq of another one."""
        metric = self._bd_seq_metric
        if bd_seq is not None:
            metric = Metric(timestamp=now_ms(), name="bdSeq", datatype=DataType.INT64, value=bd_seq)
        self._publish("NDEATH", None, NDeath(now_ms(), metric))

    def disconnect(self) -> None:
        """End in order: NDEATH, then DISCONNECT."""
        self.death(None)
        self._client.disconnect()

    def _message(self, verb: str, device_id: str | None, payload: Any) -> Message:
        topic = Topic(
            message_type=MessageType[verb],
            group_id=self._node.group_id,
            edge_node_id=self._node.edge_node_id,
            device_id=device_id,
        )
        return Message(topic=topic, payload=payload, qos=QoS.AT_MOST_ONCE, retain=False)

    def _publish(self, verb: str, device_id: str | None, payload: Any) -> None:
        self._client.publish(self._message(verb, device_id, payload))


def now_ms() -> int:
    return int(time.time() * 1000)


def iter_sequence() -> Any:
    while True:
        yield from range(256)


def main() -> None:
    node: Node | None = None
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        try:
            if name == "define":
                node = Node(command)
            else:
                assert node is not None, "define first"
                getattr(node, name)(**command)
        except Exception as error:
            tell(failed=f"{name}: {error!r}")
        else:
            tell(done=name)


if __name__ == "__main__":
    main()
