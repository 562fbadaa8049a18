"""What every transport hands its input to: counted, shown to edge detection, thinned, made durable.

In: decoded frames (`put`, `put_or_drop`) and refused bytes (`put_dead_letter`), in order of arrival.
Out: frames with the alarms that they caused, to the forwarder that makes them durable.
Guarantees: each frame is received once in the ledger and ends there as delivered, buffered or dropped with a
reason. Edge detection sees every live frame, in order of arrival, before anything is left out. A frame that
was left out for saying nothing new is settled at once; one that was not taken makes its device report in
full again.
Not here: durability (`buffer.buffered_forwarder`), what an alarm is (`edge_alarms`), what may be left out
(`report_by_exception`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.buffer.ledger import Ledger
from plantwire.gateway.forwarder import DeadLetter, Forwarder, UnavailableError
from plantwire.schemas.records import AlarmEvent, TelemetryFrame


class Observed(NamedTuple):
    """What edge detection made of a frame."""

    frame: TelemetryFrame
    """The frame as it goes on; with `edge_state` while its device has diverged."""
    events: Sequence[AlarmEvent] = ()
    """The alarm events that it caused. The local clients have them already."""


class EdgeDetection(Protocol):
    """Alarms without the cloud; called from the event loop's thread only, none of it waits.

    `order` numbers the frames in the order in which they were taken, from 1. A device has diverged from its
    first `on_spilled` until an `on_delivered_with_state` with the same or a higher order: only a frame that
    was taken after the spilled one tells the cloud what that one did.
    """

    def observe(self, frame: TelemetryFrame) -> Observed:
        """Evaluate a live frame (never a historical one); its events go to the local clients at once."""

    def on_spilled(self, device_id: str, order: int) -> None:
        """A frame of the device may reach the cloud as history only, or not at all."""

    def on_delivered_with_state(self, device_id: str, order: int) -> None:
        """Kafka acknowledged a live frame of the device that carried `edge_state`."""


class Thinning(Protocol):
    """Report by exception; called from the event loop's thread only."""

    def thin(self, frame: TelemetryFrame) -> TelemetryFrame | None:
        """The frame with what is new in it; None where nothing is. A historical frame comes back as it is."""

    def forget(self, device_id: str) -> None:
        """What was last reported of the device did not get through: report its next values in full."""


class DurableForwarder(Forwarder, Protocol):
    """A forwarder that keeps alarms beside the frames that caused them."""

    def put(
        self,
        frames: Sequence[TelemetryFrame],
        alarms: Sequence[Sequence[AlarmEvent]] = (),
        refusal: DropReason = DropReason.RETURNED,
    ) -> asyncio.Future[None]:
        """As `Forwarder.put`. `alarms` holds the events of each frame, or nothing at all: they are stored
        with a frame that does not reach Kafka live, and left to the cloud's detection where it does.
        `refusal` is what a frame counts as that is durable nowhere in the end.
        """

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """As `Forwarder.put_dead_letter`; `refusal` as in `put`."""

    def put_alarms(self, events: Sequence[AlarmEvent]) -> None:
        """Store events that no frame caused (a delay that ended) for Kafka; never refuses."""


class Intake:
    """The `Forwarder` that transports see."""

    def __init__(
        self,
        forwarder: DurableForwarder,
        ledger: Ledger,
        edge: EdgeDetection | None = None,
        thinning: Thinning | None = None,
    ) -> None:
        self._forwarder = forwarder
        self._ledger = ledger
        self._edge = edge
        self._thinning = thinning

    def put(
        self, frames: Sequence[TelemetryFrame], refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """See `Forwarder.put`; `refusal` is what a frame counts as that is durable nowhere in the end."""
        return self._put(frames, refusal)

    def put_or_drop(self, frames: Sequence[TelemetryFrame]) -> None:
        """Take frames whose sender cannot be told that there was no room (MQTT QoS 0): those that are durable
        nowhere in the end are counted as dropped for want of room.
        """
        try:
            future = self._put(frames, DropReason.NO_ROOM)
        except UnavailableError:
            return
        future.add_done_callback(_hear)

    def put_dead_letter(
        self, letter: DeadLetter, refusal: DropReason = DropReason.RETURNED
    ) -> asyncio.Future[None]:
        """See `Forwarder.put_dead_letter`; `refusal` as in `put`."""
        return self._forwarder.put_dead_letter(letter, refusal)

    async def ready(self) -> str | None:
        """See `Forwarder.ready`."""
        return await self._forwarder.ready()

    def _put(self, frames: Sequence[TelemetryFrame], refusal: DropReason) -> asyncio.Future[None]:
        if self._edge is None and self._thinning is None:
            return self._forwarder.put(frames, (), refusal)
        kept, alarms = self._evaluate(frames)
        if not kept:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        try:
            future = self._forwarder.put(kept, alarms, refusal)
        except UnavailableError:
            self._report_again(kept)
            raise
        if self._thinning is not None:
            future.add_done_callback(partial(self._handle_settled, kept))
        return future

    def _evaluate(
        self, frames: Sequence[TelemetryFrame]
    ) -> tuple[list[TelemetryFrame], list[Sequence[AlarmEvent]]]:
        kept: list[TelemetryFrame] = []
        alarms: list[Sequence[AlarmEvent]] = []
        for arrived in frames:
            observed = Observed(arrived)
            if self._edge is not None and not arrived.historical:
                observed = self._edge.observe(arrived)
            frame: TelemetryFrame | None = observed.frame
            if self._thinning is not None:
                frame = self._thinning.thin(observed.frame)
                if frame is None and (observed.events or observed.frame.edge_state):
                    # What changed an alarm, or tells the cloud of one, goes on in any case. Otherwise as the
                    # thinning has it: it may bring along values that were left out before.
                    frame = observed.frame
            if frame is None:
                self._ledger.account(arrived.protocol).refuse(DropReason.UNCHANGED)
                continue
            kept.append(frame)
            alarms.append(observed.events)
        return kept, alarms

    def _handle_settled(self, frames: Sequence[TelemetryFrame], future: asyncio.Future[None]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._report_again(frames)

    def _report_again(self, frames: Sequence[TelemetryFrame]) -> None:
        if self._thinning is not None:
            for frame in frames:
                self._thinning.forget(frame.device_id)


def _hear(future: asyncio.Future[None]) -> None:
    """An outcome that nobody waits for; the ledger has it."""
    if not future.cancelled():
        future.exception()
