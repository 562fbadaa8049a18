"""The cross-check: unchanged official python-socketio clients that must see the same alarms.

In, Out: as `bench.socket_clients` (same order, same lines, same receipts file).
Guarantees: nothing of the protocol is spoken here; whatever the light clients get wrong or leave out
(an event sent twice, a message that only a lenient reader takes) shows as a difference.
Not here: latency: these clients are slower, and their receipts are left out of the latency figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import socketio
import uvloop

from bench.receipts import Recorder
from bench.socket_clients import CONNECT_TIMEOUT_S, ClientOrder, answer_marks, read_order, tell

ALARM_EVENTS: Final = ("alarm", "alarm-updated", "alarm-cleared")


def make_client(client: int, namespace: str, recorder: Recorder, settled: asyncio.Event) -> Any:
    """A client of `namespace` that records its alarms; `settled` is set when it holds the initial state."""
    made = socketio.AsyncClient(reconnection=False)

    def on_initial_state(_state: Any) -> None:
        settled.set()

    def recording(event: str) -> Callable[[Any], None]:
        def on_alarm(alarm: Any) -> None:
            received_ns = time.time_ns()
            recorder.record(client, msgspec.json.encode([event, alarm]), received_ns)

        return on_alarm

    def on_telemetry(_message: Any) -> None:
        recorder.telemetry += 1

    def on_disconnect(reason: Any = "") -> None:
        recorder.disconnected.append(f"official client {client}: {reason}")

    for event in ALARM_EVENTS:
        made.on(event, recording(event), namespace=namespace)
    made.on("initial-state", on_initial_state, namespace=namespace)
    made.on("telemetry", on_telemetry, namespace=namespace)
    made.on("disconnect", on_disconnect, namespace=namespace)
    return made


async def run(order: ClientOrder) -> None:
    """Connect all, follow them until standard input ends, write the receipts."""
    recorder = Recorder()
    settled = [asyncio.Event() for _ in range(order.count)]
    clients = [
        make_client(order.first_client + n, order.namespace, recorder, event)
        for n, event in enumerate(settled)
    ]
    try:
        for client, event in zip(clients, settled, strict=True):
            await client.connect(
                order.url,
                namespaces=[order.namespace],
                transports=["websocket"],
                auth={"token": order.token},
                wait_timeout=CONNECT_TIMEOUT_S,
            )
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await event.wait()
    except (socketio.exceptions.ConnectionError, TimeoutError) as error:
        tell({"event": "refused", "reason": str(error)})
        raise SystemExit(1) from None
    tell({"event": "ready"})
    await answer_marks(recorder)
    lost = list(recorder.disconnected)  # what comes after is our own good-bye
    await asyncio.gather(*(client.disconnect() for client in clients))
    recorder.disconnected = lost
    recorder.write(Path(order.receipts_file), time.process_time())


if __name__ == "__main__":
    uvloop.run(run(read_order()))
