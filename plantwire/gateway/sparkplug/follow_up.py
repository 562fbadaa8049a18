"""Does what an outcome asks for: forwards its frames, counts, sets timers, sends rebirth requests.

In: outcomes. Out: frames and dead letters to the intake; rebirth requests to the broker while there is one.
Guarantees: frames go on in the order of the calls. Edge nodes have one timer each at most. Rebirth requests
are spread over time (`rebirth_pace`) and none leaves before `open_gate`.
Not here: what messages mean (`edge_nodes`), the connection (`host`), what finds no room (`hand_over`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import msgspec
import structlog

from plantwire.gateway.forwarder import DeadLetter, UnavailableError
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.sparkplug.commands import command_topic, rebirth_request
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.hand_over import TRANSPORT, HandOver, SparkplugIntake
from plantwire.gateway.sparkplug.outcome import (
    PROTOCOL,
    EdgeNodeId,
    Note,
    Outcome,
    RequestRebirth,
    SetTimer,
)
from plantwire.gateway.sparkplug.rebirth_pace import RebirthPace
from plantwire.gateway.sparkplug.topic import Topic, parse_topic
from plantwire.schemas.records import TelemetryFrame

_BATCH_FRAMES: Final = 1000
_NOT_QUEUED: Final = "rebirth-not-queued"

log = structlog.get_logger()


def monotonic_ms() -> int:
    """The clock of timers and limits."""
    return time.monotonic_ns() // 1_000_000


class FollowUp:
    """Used from the event loop's thread."""

    def __init__(
        self,
        edge_nodes: EdgeNodes,
        intake: SparkplugIntake,
        metrics: GatewayMetrics,
        pace: RebirthPace,
    ) -> None:
        self._edge_nodes = edge_nodes
        self._hand_over = HandOver(intake, metrics.unavailable)
        self._metrics = metrics
        self._counted = metrics.sparkplug
        self._pace = pace
        self._counted.rebirths_waiting.set_function(lambda: len(pace))
        self._publish: Callable[[str, bytes], None] | None = None
        self._timers: dict[EdgeNodeId, asyncio.TimerHandle] = {}
        self._next_rebirths: asyncio.TimerHandle | None = None

    def open_gate(self, publish: Callable[[str, bytes], None]) -> None:
        """We are online: send what waits, and what comes, by `publish` (topic, payload)."""
        self._publish = publish
        self._send_due()

    def close_gate(self) -> None:
        """The broker is lost: nobody can be asked, and no timer of the sessions there means anything."""
        self._publish = None
        self._pace.clear()
        if self._next_rebirths is not None:
            self._next_rebirths.cancel()
            self._next_rebirths = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def apply(self, outcome: Outcome, topic: str = "", payload: bytes = b"", received_us: int = 0) -> None:
        """Do it all; `topic` and `payload` are the message that led to it, if one did."""
        if outcome.frames:
            self._hand_over.take(outcome.frames)
        if outcome.rejected:
            self._refuse(outcome, topic, payload, received_us)
        for note in outcome.notes:
            self._counted.notes.labels(note.value).inc()
        if Note.EDGE_NODE_BORN in outcome.notes:
            self._note_born(topic)
        for effect in outcome.effects:
            if isinstance(effect, SetTimer):
                self._set_timer(effect)
            else:
                self._ask(effect)

    async def tell_stale(self, outcomes: Iterator[Outcome]) -> None:
        """Do what the outcomes of a lost broker ask for; their frames go to the intake in turns."""
        frames: list[TelemetryFrame] = []
        for outcome in outcomes:
            frames += outcome.frames
            self.apply(msgspec.structs.replace(outcome, frames=()))
            if len(frames) >= _BATCH_FRAMES:
                await self._hand_over.tell_stale(frames)
                frames = []
        await self._hand_over.tell_stale(frames)

    def stop_trying(self) -> None:
        """The gateway is stopping: what finds no room is not tried again."""
        self._hand_over.stop_trying()

    async def close(self) -> None:
        """Wait for what becomes of the frames in hand."""
        await self._hand_over.close()

    def _note_born(self, topic: str) -> None:
        born = parse_topic(topic)
        if isinstance(born, Topic):
            self._pace.withdraw(born.edge_node)  # it need not be asked any more

    def _refuse(self, outcome: Outcome, topic: str, payload: bytes, received_us: int) -> None:
        for rejected in outcome.rejected:
            self._metrics.rejected.labels(TRANSPORT, rejected.reason.value).inc()
        first = outcome.rejected[0]
        letter = DeadLetter(payload, first, f"{TRANSPORT}:{topic}", received_us // 1000, PROTOCOL)
        try:
            future = self._hand_over.put_dead_letter(letter)
        except UnavailableError as unavailable:
            self._metrics.unavailable.labels(TRANSPORT, unavailable.obstacle.value).inc()
        else:
            future.add_done_callback(partial(self._handle_letter_settled, first.reason.value))

    def _handle_letter_settled(self, reason: str, future: asyncio.Future[None]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._metrics.dead_letters.labels(reason).inc()
        elif isinstance(error, UnavailableError):
            self._metrics.unavailable.labels(TRANSPORT, error.obstacle.value).inc()
        else:
            raise error

    def _set_timer(self, effect: SetTimer) -> None:
        earlier = self._timers.pop(effect.edge_node, None)
        if earlier is not None:
            earlier.cancel()
        if effect.at_ms is not None:
            delay_s = max(0, effect.at_ms - monotonic_ms()) / 1000
            self._timers[effect.edge_node] = asyncio.get_running_loop().call_later(
                delay_s, self._handle_timer, effect.edge_node
            )

    def _handle_timer(self, edge_node: EdgeNodeId) -> None:
        self._timers.pop(edge_node, None)
        self.apply(self._edge_nodes.expire(edge_node, time.time_ns() // 1000, monotonic_ms()))

    def _ask(self, request: RequestRebirth) -> None:
        if not self._pace.ask(request):
            # There is room for each edge node that is followed, so these are forgotten ones. The next message
            # of such a node asks again.
            self._counted.notes.labels(_NOT_QUEUED).inc()
            return
        self._send_due()

    def _send_due(self) -> None:
        if self._publish is None:
            return
        now_ms = monotonic_ms()
        for request in self._pace.take_due(now_ms):
            self._publish(
                command_topic(request.edge_node, None), rebirth_request(time.time_ns() // 1_000_000)
            )
            self._counted.rebirths.labels(request.reason.value).inc()
            # A thousand of these follow a restart: counted, and logged for those who look for one node.
            log.debug("sparkplug_rebirth_requested", edge_node=request.edge_node, reason=request.reason.value)
        if self._next_rebirths is not None:
            self._next_rebirths.cancel()
            self._next_rebirths = None
        due_ms = self._pace.next_due_ms()
        if due_ms is not None:
            self._next_rebirths = asyncio.get_running_loop().call_later(
                max(1, due_ms - now_ms) / 1000, self._send_due
            )
