"""One edge node: its births, data, deaths, and the order of its messages. Pure.

In: its messages in order of arrival, with their times. Out: `Outcome`.
Guarantees: never raises. Data is forwarded as it comes, never held back for one that is missing: the reorder
timer decides about the rebirth request alone. Whatever is not forwarded is refused or noted.
After an NDEATH that matches the birth, and after `lose_broker`, all metrics of the node and its devices are
told once more as stale, and no data is taken until the next birth.
Not here: topics and bounds over all nodes (`edge_nodes`), MQTT and clocks (`host`).

What deviates from the standard but leaves no doubt of its meaning is taken and noted: an NBIRTH without
bdSeq, or with a seq other than 0 (chapter 4 asks for 0, chapter 6 for any of 0 to 255); messages without seq.
"""

from __future__ import annotations

from collections.abc import Iterable

from plantwire.gateway.decode_json import TIMESTAMP_MAX_MS
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.frames import Stamp, frames_of, stale_frames
from plantwire.gateway.sparkplug.metric_budget import MetricBudget
from plantwire.gateway.sparkplug.metric_table import Definition, MetricTable, fill_table
from plantwire.gateway.sparkplug.names import device_id_of
from plantwire.gateway.sparkplug.outcome import (
    EdgeNodeId,
    Note,
    Outcome,
    RebirthReason,
    SetTimer,
    SparkplugLimits,
)
from plantwire.gateway.sparkplug.payload import bdseq_of
from plantwire.gateway.sparkplug.rebirth_limit import RebirthLimit
from plantwire.gateway.sparkplug.rebirths import Rebirths
from plantwire.gateway.sparkplug.samples import Times, read_samples
from plantwire.gateway.sparkplug.sequence import SEQUENCES, Order, SequenceTracker
from plantwire.gateway.sparkplug.topic import MessageType
from plantwire.gateway.sparkplug.turn import Turn
from plantwire.schemas.sparkplug.sparkplug_b_pb2 import Payload


class EdgeNodeSession:
    """`take` each message of the node; call `expire` when the timer that it asked for is due."""

    def __init__(
        self, edge_node: EdgeNodeId, device_id: str, limits: SparkplugLimits, budget: MetricBudget
    ) -> None:
        self.edge_node = edge_node
        self.heard_ms = 0
        """When the node last sent anything, wall clock."""
        self.table: MetricTable | None = None
        """The node's own metrics; None while it is not born."""
        self.devices: dict[str, MetricTable] = {}
        """Devices that are born in this session."""
        self.rebirths = Rebirths(edge_node, RebirthLimit(limits.rebirth_first_ms, limits.rebirth_longest_ms))
        self._device_id = device_id
        self._limits = limits
        self._budget = budget
        self._bdseq: int | None = None
        self._tracker = SequenceTracker(0)
        self._digest = 0
        # Devices whose DBIRTH must follow the NBIRTH just taken; stale if it does not.
        self._unconfirmed: dict[str, MetricTable] = {}
        self._confirm_by_ms: int | None = None
        self._reorder_by_ms: int | None = None
        self._timer_ms: int | None = None
        self._aliases: set[int] = set()
        # When values last went stale: births after it are told as later, whatever the node's clock says.
        self._stale_ms = 0
        self._dead_devices: dict[str, int] = {}

    def take(
        self,
        message: MessageType,
        device: str | None,
        payload: Payload,
        digest: int,
        received_us: int,
        now_ms: int,
    ) -> Outcome:
        """Take one message; `digest` tells it from any other of this node, topic included."""
        turn = Turn(received_us, now_ms)
        self.heard_ms = turn.received_ms
        if message is MessageType.NBIRTH:
            self._take_birth(turn, payload)
            self._digest = digest
        elif message is MessageType.NDEATH:
            self._take_death(turn, payload)
        elif self.table is None:
            turn.refuse(Reason.NOT_BORN, f"{message} of an edge node whose birth is not known.")
            self.rebirths.want(turn, RebirthReason.BEFORE_BIRTH)
        elif self._is_repeated(payload, digest):
            turn.notes.append(Note.SEQUENCE_REPEATED)
        else:
            late = self._note_order(turn, payload)
            self._digest = digest
            self.rebirths.note_heard(turn)
            if device is None:
                self._take_data(turn, self.table, payload, late)
            elif message is MessageType.DDATA:
                self._take_device_data(turn, device, payload, late)
            elif message is MessageType.DBIRTH:
                self._take_device_birth(turn, device, payload)
            else:
                self._take_device_death(turn, device, payload)
        return self._finish(turn)

    def refuse(
        self, rejected: Rejected, message: MessageType, device: str | None, received_us: int, now_ms: int
    ) -> Outcome:
        """A message of this node that cannot be read at all. After a birth that cannot, what was known
        before is no longer what data refers to.
        """
        turn = Turn(received_us, now_ms)
        self.heard_ms = turn.received_ms
        turn.refuse_as(rejected)
        if message is MessageType.NBIRTH:
            self._end(turn)
        elif message is MessageType.DBIRTH and device is not None:
            table = self._let_go(device)
            if table is not None:
                self._mark_stale(turn, table, turn.received_ms)
        if rejected.reason is Reason.NOT_PROTOBUF:
            self.rebirths.want(turn, RebirthReason.MALFORMED)
        return self._finish(turn)

    def expire(self, received_us: int, now_ms: int) -> Outcome:
        """Do what is due at `now_ms`; does nothing when nothing is."""
        turn = Turn(received_us, now_ms)
        self._timer_ms = None
        if self._reorder_by_ms is not None and self._reorder_by_ms <= now_ms:
            self._reorder_by_ms = None
            self._tracker.give_up()
            self.rebirths.want(turn, RebirthReason.SEQUENCE_GAP)
        if self._confirm_by_ms is not None and self._confirm_by_ms <= now_ms:
            self._confirm_by_ms = None
            for table in self._unconfirmed.values():
                self._mark_stale(turn, table, turn.received_ms)
            turn.notes.extend([Note.DEVICE_DIED] * len(self._unconfirmed))
            self._unconfirmed.clear()
        self.rebirths.expire(turn)
        return self._finish(turn)

    def ask(self, reason: RebirthReason, now_ms: int) -> Outcome:
        """Ask for the births, as often as the node may be asked."""
        turn = Turn(0, now_ms)
        self.rebirths.want(turn, reason)
        return self._finish(turn)

    def end(self, received_us: int, now_ms: int) -> Outcome:
        """The session is over for reasons of the host: everything is stale."""
        turn = Turn(received_us, now_ms)
        self._end(turn)
        return self._finish(turn)

    def _take_birth(self, turn: Turn, payload: Payload) -> None:
        before = self.table
        table = MetricTable(self._device_id, self.edge_node.group)
        refused = self._define(table, payload, before)
        if refused is not None:
            turn.refuse_as(refused)
            self._end(turn)
            self._want_another_birth(turn, refused)
            return
        bdseq = bdseq_of(payload)
        if bdseq is None:
            turn.notes.append(Note.BDSEQ_MISSING)
        if bdseq != self._bdseq or bdseq is None:
            # Another session: that of the devices is over, though its death may still be under way.
            for gone in (*self.devices.values(), *self._unconfirmed.values()):
                self._mark_stale(turn, gone, turn.received_ms)
            self._unconfirmed.clear()
        else:
            for device, known in self.devices.items():
                self._unconfirmed[device] = known
        self.devices.clear()
        self._confirm_by_ms = turn.now_ms + self._limits.reorder_timeout_ms if self._unconfirmed else None
        self._bdseq = bdseq
        self._aliases = set(table.aliases)
        self._dead_devices.clear()
        self.table = table
        self._reorder_by_ms = None
        sequence = payload.seq if payload.HasField("seq") else SEQUENCES
        if sequence >= SEQUENCES:
            turn.notes.append(Note.SEQUENCE_MISSING)
            sequence = 0
        self._tracker = SequenceTracker(sequence)
        self.rebirths.note_settled()
        turn.notes.append(Note.EDGE_NODE_BORN)
        self._tell_birth(turn, table, before, payload, self._stale_ms)

    def _take_death(self, turn: Turn, payload: Payload) -> None:
        if self.table is None:
            turn.notes.append(Note.DEATH_IGNORED)
            return
        bdseq = bdseq_of(payload)
        if bdseq == self._bdseq:
            turn.notes.append(Note.EDGE_NODE_DIED)
            self._end(turn)
        elif bdseq is None:
            turn.refuse(Reason.BAD_SHAPE, "An NDEATH without bdSeq, while the NBIRTH had one.")
            self.rebirths.want(turn, RebirthReason.MALFORMED)
        else:
            turn.notes.append(Note.DEATH_IGNORED)

    def _take_device_birth(self, turn: Turn, device: str, payload: Payload) -> None:
        before = self._let_go(device)
        device_id = before.device_id if before is not None else self._identify(device)
        if isinstance(device_id, Rejected):
            turn.refuse_as(device_id)
            return
        table = MetricTable(device_id, self.edge_node.group)
        refused = self._define(table, payload, before)
        if refused is not None:
            turn.refuse_as(refused)
            if before is not None:
                self._mark_stale(turn, before, turn.received_ms)
            self._want_another_birth(turn, refused)
            return
        self.devices[device] = table
        self._aliases.update(table.aliases)
        turn.notes.append(Note.DEVICE_BORN)
        stale_ms = max(self._stale_ms, self._dead_devices.pop(device, 0))
        self._tell_birth(turn, table, before, payload, stale_ms)

    def _take_device_death(self, turn: Turn, device: str, payload: Payload) -> None:
        table = self._let_go(device)
        if table is not None:
            at_ms = self._payload_ms(turn, payload)
            if at_ms > turn.received_ms + self._limits.time_ahead_max_ms:
                at_ms = turn.received_ms
            turn.notes.append(Note.DEVICE_DIED)
            self._mark_stale(turn, table, at_ms)
            if len(self._dead_devices) < self._limits.devices_per_node_max:
                self._dead_devices[device] = at_ms
        elif device in self._dead_devices:
            turn.notes.append(Note.DEATH_IGNORED)
        else:
            self._refuse_unborn_device(turn, MessageType.DDEATH, device)

    def _take_device_data(self, turn: Turn, device: str, payload: Payload, late: bool) -> None:
        table = self.devices.get(device)
        if table is None:
            self._refuse_unborn_device(turn, MessageType.DDATA, device)
        else:
            self._take_data(turn, table, payload, late)

    def _refuse_unborn_device(self, turn: Turn, message: MessageType, device: str) -> None:
        device_id = self._identify(device)
        if isinstance(device_id, Rejected):  # its birth would be refused too
            turn.refuse_as(device_id)
            return
        turn.refuse(Reason.NOT_BORN, f"{message} of a device whose birth is not known.")
        self.rebirths.want(turn, RebirthReason.BEFORE_BIRTH)

    def _want_another_birth(self, turn: Turn, refused: Rejected) -> None:
        if refused.reason is Reason.INVALID_BIRTH:  # one that was out of bounds would be so again
            self.rebirths.want(turn, RebirthReason.INVALID_BIRTH)

    def _identify(self, device: str) -> str | Rejected:
        """The device id of a device that is not known, or why it cannot be born."""
        known = len(self.devices) + len(self._unconfirmed)
        if known >= self._limits.devices_per_node_max:
            return Rejected(Reason.TOO_MANY_DEVICES, f"An edge node with more than {known} devices.")
        return device_id_of(self.edge_node, device)

    def _take_data(self, turn: Turn, table: MetricTable, payload: Payload, late: bool) -> None:
        times = Times(self._payload_ms(turn, payload), turn.received_ms + self._limits.time_ahead_max_ms)
        self._tell(turn, table, payload, times, late)

    def _tell_birth(
        self, turn: Turn, table: MetricTable, before: MetricTable | None, payload: Payload, stale_ms: int
    ) -> None:
        if before is not None:
            gone = [metric for metric in before.carried() if metric.name not in table.names]
            self._tell_stale(turn, before, gone, turn.received_ms)
        payload_ms = self._payload_ms(turn, payload)
        latest_ms = turn.received_ms + self._limits.time_ahead_max_ms
        birth_ms = max(payload_ms if payload_ms <= latest_ms else turn.received_ms, stale_ms + 1)
        self._tell(turn, table, payload, Times(payload_ms, latest_ms, birth_ms), late=False)

    def _tell(self, turn: Turn, table: MetricTable, payload: Payload, times: Times, late: bool) -> None:
        samples = read_samples(table, payload.metrics, times, self._limits.metrics_per_device_max)
        sequence = payload.seq if payload.HasField("seq") and payload.seq < SEQUENCES else None
        stamp = Stamp(table.device_id, table.site, sequence, turn.received_us)
        turn.frames.extend(frames_of(stamp, samples, self._limits.metrics_per_frame_max, late=late))
        turn.notes.extend(samples.notes)
        turn.refuse_all(samples.refusals)
        if Reason.UNKNOWN_METRIC in samples.refusals:
            self.rebirths.want(turn, RebirthReason.UNKNOWN_METRIC)

    def _define(self, table: MetricTable, payload: Payload, before: MetricTable | None) -> Rejected | None:
        """Fill `table`, which replaces `before`; a refusal leaves `before` with its metrics reserved."""
        aliases = self._aliases if before is not self.table else ()
        refused = fill_table(table, payload.metrics, aliases, self._limits.metrics_per_device_max)
        if refused is not None:
            return refused
        freed = len(before.names) if before is not None else 0
        self._budget.give_back(freed)
        if self._budget.take(len(table.names)):
            return None
        self._budget.used += freed
        return Rejected(
            Reason.TOO_MANY_METRICS,
            f"More than {self._budget.metrics_max} metrics of all edge nodes together.",
        )

    def _let_go(self, device: str) -> MetricTable | None:
        """The device's metrics, which from now on are nobody's; None where it is not born."""
        table = self.devices.pop(device, None)
        if table is not None:
            self._aliases.difference_update(table.aliases)
            return table
        table = self._unconfirmed.pop(device, None)
        if not self._unconfirmed:
            self._confirm_by_ms = None
        return table

    def _end(self, turn: Turn) -> None:
        """Everything stale as of now, everything forgotten but what the next birth is compared with."""
        if self.table is not None:
            self._mark_stale(turn, self.table, turn.received_ms)
        for table in (*self.devices.values(), *self._unconfirmed.values()):
            self._mark_stale(turn, table, turn.received_ms)
        self.table = None
        self.devices.clear()
        self._unconfirmed.clear()
        self._dead_devices.clear()
        self._aliases.clear()
        self._confirm_by_ms = self._reorder_by_ms = None
        self.rebirths.note_settled()

    def _mark_stale(self, turn: Turn, table: MetricTable, at_ms: int) -> None:
        """Tell all metrics of a table that is let go as stale."""
        self._tell_stale(turn, table, table.carried(), at_ms)
        self._budget.give_back(len(table.names))
        if at_ms == turn.received_ms:
            self._stale_ms = at_ms

    def _tell_stale(self, turn: Turn, table: MetricTable, metrics: Iterable[Definition], at_ms: int) -> None:
        turn.frames.extend(
            stale_frames(table, metrics, at_ms, turn.received_us, self._limits.metrics_per_frame_max)
        )

    def _is_repeated(self, payload: Payload, digest: int) -> bool:
        """Whether this is the message before once more, its number included."""
        return digest == self._digest and payload.HasField("seq")

    def _note_order(self, turn: Turn, payload: Payload) -> bool:
        """Note the message's place in the order; True where later ones came before it."""
        if not payload.HasField("seq") or payload.seq >= SEQUENCES:
            turn.notes.append(Note.SEQUENCE_MISSING)
            return False
        order = self._tracker.take(payload.seq)
        if order is Order.NEXT:
            return False
        if order is Order.AHEAD or order is Order.BEHIND:
            turn.notes.append(Note.SEQUENCE_GAP)
            if self._reorder_by_ms is None:
                self._reorder_by_ms = turn.now_ms + self._limits.reorder_timeout_ms
            return order is Order.BEHIND
        turn.notes.append(Note.SEQUENCE_FILLED)
        if order is Order.COMPLETES:
            self._reorder_by_ms = None
        return True

    def _payload_ms(self, turn: Turn, payload: Payload) -> int:
        return min(payload.timestamp, TIMESTAMP_MAX_MS + 1) or turn.received_ms

    def _finish(self, turn: Turn) -> Outcome:
        due = [
            at_ms
            for at_ms in (self._reorder_by_ms, self._confirm_by_ms, self.rebirths.due_ms)
            if at_ms is not None
        ]
        timer_ms = min(due, default=None)
        if timer_ms != self._timer_ms:
            self._timer_ms = timer_ms
            turn.effects.append(SetTimer(self.edge_node, timer_ms))
        return turn.outcome()
