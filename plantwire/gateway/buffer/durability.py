"""When a record goes to the buffer, when it is durable, and what may be drained. Pure: time arrives.

In: records as they are taken, what Kafka answered to each live attempt, what the buffer answered to each
commit, the time. Out: calls on `Actions`, and the ledger.
Guarantees: a put is settled as durable only once each of its records is acknowledged by Kafka or committed
to the buffer. An entry whose live attempt is undecided (in doubt), and whatever came after it, is not
drained. While Kafka does not answer, records are committed in the order in which they came, also after the
buffer refused some. Alarms are stored with the frame that caused them, and forgotten when that frame arrives
live. What is in hand is bounded by the caller (live attempts) and by the buffer (commits that wait).
Not here: Kafka, SQLite, futures (`buffered_forwarder`), the draining (`drain`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final, Protocol

import msgspec

from plantwire.gateway.buffer.commit_parts import commit_parts, size_with_alarms_bytes, with_alarms
from plantwire.gateway.buffer.entry import BufferRefusedError, DropReason
from plantwire.gateway.buffer.record import Alarm, Live, Put, Record, Row

OWED_ALARMS_MAX: Final = 10_000
"""Alarms that neither Kafka nor the buffer took, kept in memory to be tried again."""
_TOO_LARGE: Final = "more than the buffer takes at once"


class Mode(Enum):
    """What a put waits for."""

    DIRECT = "direct"
    """Kafka's acknowledgement; nothing is written to disk."""
    BUFFERING = "buffering"
    """Kafka's acknowledgement or the buffer's commit, whichever comes first."""


class Policy(msgspec.Struct, frozen=True):
    """When to change over, milliseconds."""

    spill_after_ms: float
    """An attempt that is older means that Kafka is slow or away."""
    retry_ms: float = 1000.0
    """How long after a refusal the buffer is asked again."""
    commit_max_bytes: int = 2 * 1024 * 1024
    """Per commit; the buffer bounds a single one."""


class Actions(Protocol):
    """What the machine has done for it. None of it calls back before it returns."""

    def commit(self, records: Sequence[Record]) -> None:
        """Put their entries, in this order, into the buffer; `committed` or `refused` follows.

        Raises `BufferRefusedError` where the buffer refuses at once.
        """

    def forget(self, record: Record) -> None:
        """Its entry is not needed: acknowledge it in the buffer; `forgotten` follows."""

    def settle(self, put: Put, failure: str | None) -> None:
        """Every record of `put` is durable, or (with `failure`) one is nowhere."""

    def spilled(self, record: Record) -> None:
        """An observed frame may reach the cloud as history only."""

    def delivered_with_state(self, record: Record) -> None:
        """A frame with `edge_state` arrived live."""

    def probe(self) -> None:
        """Nothing is in flight that could tell whether Kafka is back: ask; `found_kafka` may follow."""

    def mode_changed(self) -> None:
        """`mode` is another."""


class Durability:
    """The machine. `now_ms` is monotonic, milliseconds, the same clock in every call."""

    def __init__(self, actions: Actions, policy: Policy) -> None:
        self.mode = Mode.DIRECT
        self.mode_since_ms = 0.0
        self.refusal: str | None = None
        """Why the buffer took nothing when last asked."""
        self._actions = actions
        self._policy = policy
        self._paused_until_ms = 0.0
        # In order of arrival; the first is the oldest. Not a `dict`: that looks for its first key among all
        # that were deleted before it.
        self._trying: OrderedDict[int, Record] = OrderedDict()
        # Stored and undecided, by entry id, which grows.
        self._in_doubt: OrderedDict[int, Record] = OrderedDict()
        self._owed: deque[Alarm] = deque()
        self._has_unstored = False
        self._commits = 0
        self._highest_id = 0

    @property
    def undecided(self) -> int:
        """Live attempts that Kafka has not answered."""
        return len(self._trying)

    @property
    def busy(self) -> bool:
        """Whether something is in hand that is durable nowhere, or a commit is under way."""
        return bool(self._commits or self._owed) or any(r.row is Row.NONE for r in self._trying.values())

    def drain_below(self) -> int | None:
        """Only entries with a smaller id may be drained; None where all may."""
        if self._in_doubt:
            return next(iter(self._in_doubt))
        # A commit that is under way may hold undecided entries; they will have higher ids.
        return self._highest_id + 1 if self._commits else None

    def take(self, records: Sequence[Record], live: bool, now_ms: float) -> None:
        """Take the records of one put. With `live` the caller hands them to Kafka after this call.

        Raises `BufferRefusedError`, with none taken, where there is no room live and none in the buffer.
        """
        if live:
            for record in records:
                record.live = Live.TRYING
                self._trying[record.order] = record
            if self.mode is Mode.BUFFERING:
                self._spill(records, now_ms)
            return
        if self.mode is Mode.DIRECT:
            self.spill(now_ms)  # as much in flight as may be: Kafka is slow
        elif self._has_unstored:
            self._spill((), now_ms)
        self._tell_spilled(records)
        try:
            if sum(map(size_with_alarms_bytes, records)) > self._policy.commit_max_bytes:
                raise BufferRefusedError(_TOO_LARGE)
            self._commit(with_alarms(records), now_ms)
        except BufferRefusedError:
            # The sender tries again, but the edge has told these already and will not find them twice.
            self._owe(alarm for record in records for alarm in record.alarms)
            raise

    def take_alarms(self, alarms: Sequence[Alarm], now_ms: float) -> None:
        """Take alarms that no frame caused, as many as there may be. One that no commit holds is dropped."""
        for part in commit_parts(alarms, self._policy.commit_max_bytes):
            try:
                self._commit(part, now_ms)
            except BufferRefusedError:
                self._owe(part)
        for alarm in alarms:
            if size_with_alarms_bytes(alarm) > self._policy.commit_max_bytes:
                self._receive(alarm)
                alarm.account.drop(DropReason.NO_ROOM)

    def answered(self, answers: Iterable[tuple[Record, bool]], now_ms: float) -> None:
        """Kafka acknowledged (True) or failed (False) live attempts."""
        failed: list[Record] = []
        for record, delivered in answers:
            self._trying.pop(record.order, None)
            if delivered:
                self._deliver(record, now_ms)
            else:
                record.live = Live.FAILED
                if record.row is Row.NONE:
                    failed.append(record)
                elif record.row is Row.STORED:
                    self._decide(record)
        if failed:
            self._spill(failed, now_ms)
            for record in failed:
                if record.row is Row.NONE:
                    self._give_up(record)

    def committed(self, records: Sequence[Record], entry_ids: Sequence[int], now_ms: float) -> None:
        """The buffer has them, under these ids."""
        self._commits -= 1
        self.found_buffer(now_ms)
        for record, entry_id in zip(records, entry_ids, strict=True):
            self._highest_id = max(self._highest_id, entry_id)
            record.entry_id = entry_id
            record.row = Row.STORED
            record.account.store()
            live = record.attempt
            if live is Live.DELIVERED:
                self._actions.forget(record)
                continue
            if live is Live.TRYING:
                self._in_doubt[entry_id] = record
            if record.put is not None:
                record.put.stored = True
                self._settle_one(record.put)

    def refused(self, records: Sequence[Record], why: str, now_ms: float) -> None:
        """The buffer could not commit them."""
        self._commits -= 1
        self._has_unstored = self.mode is Mode.BUFFERING
        self._note_refusal(why, now_ms)
        for record in records:
            record.row = Row.NONE
        for record in records:
            live = record.attempt
            if live is Live.DELIVERED:
                record.account.deliver()
            elif live is not Live.TRYING:
                if isinstance(record, Alarm):
                    self._owe((record,))
                else:
                    self._give_up(record)

    def forgotten(self, record: Record, was_there: bool) -> None:
        """The buffer has no entry of it any more; where it `was_there` until now, it counts as delivered."""
        if was_there:
            record.account.deliver_stored()

    def found_kafka(self, now_ms: float) -> None:
        """Kafka answered a probe."""
        if self.mode is Mode.BUFFERING and not self._trying:
            self._change(Mode.DIRECT, now_ms)

    def lost_buffer(self, why: str) -> None:
        """The buffer could not be opened."""
        self.refusal = why

    def found_buffer(self, now_ms: float) -> None:
        """The buffer took something."""
        self.refusal = None
        self._paused_until_ms = now_ms

    def tick(self, now_ms: float) -> None:
        """Look at the time; call it a few times per `spill_after_ms`."""
        if self.mode is Mode.DIRECT:
            oldest = next(iter(self._trying.values()), None)
            if oldest is not None and _age_ms(oldest, now_ms) >= self._policy.spill_after_ms:
                self.spill(now_ms)
        elif not self._trying:
            self._actions.probe()
        if now_ms < self._paused_until_ms:
            return
        if self._has_unstored:
            self._spill((), now_ms)
        if self._owed:
            owed, self._owed = list(self._owed), deque()
            for alarm in owed:
                alarm.owed = False
            self.take_alarms(owed, now_ms)

    def spill(self, now_ms: float) -> None:
        """Everything in hand that is not acknowledged goes to the buffer, from now on everything new too."""
        if self.mode is Mode.DIRECT:
            self._change(Mode.BUFFERING, now_ms)
        self._has_unstored = True
        self._spill((), now_ms)

    def _deliver(self, record: Record, now_ms: float) -> None:
        record.live = Live.DELIVERED
        if record.row is Row.NONE:
            record.account.deliver()
        elif record.row is Row.STORED:
            self._decide(record)
            self._actions.forget(record)
        if record.put is not None and record.row is not Row.STORED:
            self._settle_one(record.put)
        for alarm in record.alarms:
            if alarm.row is Row.STORED:
                self._in_doubt.pop(alarm.entry_id, None)
                self._actions.forget(alarm)
            elif alarm.row is Row.NONE and alarm.received:
                alarm.account.deliver()
        if record.stateful:
            self._actions.delivered_with_state(record)
        if self.mode is Mode.BUFFERING and self._is_flowing(record, now_ms):
            self._change(Mode.DIRECT, now_ms)

    def _is_flowing(self, delivered: Record, now_ms: float) -> bool:
        oldest = next(iter(self._trying.values()), delivered)
        # Half of the bound: at its edge the mode would go to and fro.
        return (
            _age_ms(delivered, now_ms) <= self._policy.spill_after_ms / 2
            and _age_ms(oldest, now_ms) < self._policy.spill_after_ms
        )

    def _decide(self, record: Record) -> None:
        """The entry is in doubt no more."""
        self._in_doubt.pop(record.entry_id, None)
        for alarm in record.alarms:
            if alarm.row is Row.STORED:
                self._in_doubt.pop(alarm.entry_id, None)

    def _settle_one(self, put: Put) -> None:
        put.pending -= 1
        if put.pending == 0 and not put.settled:
            put.settled = True
            self._actions.settle(put, None)

    def _give_up(self, record: Record) -> None:
        """Durable nowhere: the sender hears of it, or it is counted as lost. Its alarms are still owed."""
        put = record.put
        refusal = DropReason.RETURNED if put is None else put.refusal
        record.account.drop(refusal)
        self._owe([alarm for alarm in record.alarms if alarm.row is Row.NONE])
        if record.observed:
            self._actions.spilled(record)
        if put is not None and not put.settled:
            put.settled = True
            self._actions.settle(put, self.refusal or _TOO_LARGE)

    def _spill(self, records: Sequence[Record], now_ms: float) -> None:
        """Commit undecided or failed records, and with them, in order, what was refused before.

        What the buffer refuses may yet arrive live, and is offered again by `tick`; what is too large for it
        is left to Kafka, and stops nothing else.
        """
        if self._has_unstored and now_ms >= self._paused_until_ms:
            self._has_unstored = False
            unstored = {r.order: r for r in (*self._trying.values(), *records) if r.row is Row.NONE}
            records = [unstored[order] for order in sorted(unstored)]
        self._tell_spilled(records)
        try:
            for part in commit_parts(records, self._policy.commit_max_bytes):
                self._commit(with_alarms(part), now_ms)
        except BufferRefusedError:
            self._has_unstored = self.mode is Mode.BUFFERING

    def _commit(self, records: Sequence[Record], now_ms: float) -> None:
        if now_ms < self._paused_until_ms:
            raise BufferRefusedError(self.refusal or "the buffer refuses")
        try:
            self._actions.commit(records)
        except BufferRefusedError as refused:
            self._note_refusal(str(refused), now_ms)
            raise
        self._commits += 1
        for record in records:
            record.row = Row.COMMITTING
            if isinstance(record, Alarm):
                self._receive(record)

    @staticmethod
    def _receive(alarm: Alarm) -> None:
        """The ledger has it from the first attempt to store it."""
        if not alarm.received:
            alarm.received = True
            alarm.account.receive()

    def _owe(self, alarms: Iterable[Alarm]) -> None:
        for alarm in alarms:
            if alarm.owed:
                continue
            self._receive(alarm)
            if len(self._owed) >= OWED_ALARMS_MAX:
                alarm.account.drop(DropReason.NO_ROOM)
            else:
                alarm.frame = None
                self._owed.append(alarm)
            alarm.owed = True

    def _note_refusal(self, why: str, now_ms: float) -> None:
        self.refusal = why
        self._paused_until_ms = now_ms + self._policy.retry_ms

    def _tell_spilled(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.observed:
                self._actions.spilled(record)

    def _change(self, mode: Mode, now_ms: float) -> None:
        self.mode = mode
        self._has_unstored = False
        self.mode_since_ms = now_ms
        self._actions.mode_changed()


def _age_ms(record: Record, now_ms: float) -> float:
    return now_ms - record.put.started_ms if record.put is not None else 0.0
