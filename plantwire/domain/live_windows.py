"""Live windows of telemetry per device and metric, made frame by frame: 1 s, and 5 min every minute.

In: decoded TelemetryFrames with their record's key and partition, and how far partitions are read. Out: the
windows that ended.
Guarantees: as docs/live-windows.md has them, and the same as `jobs.telemetry_aggregation` on the same frames
as long as these come without delay: numbers of good quality from live frames, each in the second of its own
time; a window is told once, when the watermark has passed its end; a sample that is left out is counted with
its reason. A time stamp far ahead moves no watermark. Open windows are bounded by `OPEN_MAX`.
Not here: clocks, Kafka (`light`), Redis (`platform.window_show`), stored windows (storage).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, Final, NamedTuple

import msgspec

from plantwire.domain.admission import MAX_AHEAD_MS
from plantwire.domain.keeping import Counters
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.windows import FIVE_MINUTES, GRACE_MS, ONE_SECOND, Window, WindowValues

HOLD_MS: Final = 300
"""How far behind the gateway's clock a partition's frames may hold the watermark."""
IDLE_MS: Final = 500
"""After this time without frames a partition that is read to its end holds nothing back."""
STEP_MS: Final = 250
"""Silence is counted in steps of so much at the most: where the process itself stood still, what came
meanwhile is yet to be read.
"""
OPEN_MAX: Final = 1_000_000
"""Open windows of 1 s, and as many sums of minutes, about 300 MB each; samples beyond are counted as
`samples_without_room`.
"""
REASONS: Final = (
    "of_another_device",
    "without_number",
    "historical",
    "not_good",
    "ahead",
    "late",
    "live",
    "not_finite",
    "without_room",
)

_LARGEST: Final = 1.7976931348623157e308
_SECOND_MS: Final = ONE_SECOND.size_ms
_MINUTE_MS: Final = FIVE_MINUTES.every_ms
_PANES: Final = FIVE_MINUTES.size_ms // FIVE_MINUTES.every_ms

Values = dict[str, dict[str, WindowValues]]
"""Device → metric → values."""
Sums = dict[str, dict[str, list[Any]]]
"""Device → metric → [total, smallest, largest, samples]."""


class Ended(NamedTuple):
    """The windows of one kind that ended at one moment."""

    window: Window
    end_ms: int
    devices: Values


class Partition:
    """How far a partition of the topic has come."""

    __slots__ = ("is_read_up", "reached_ms", "silent_ms")

    def __init__(self) -> None:
        self.reached_ms: float = -inf
        self.silent_ms = 0
        """For how long no frame of it was read."""
        self.is_read_up = False
        """Whether there was nothing more to read when it was last looked at."""


class Saved(NamedTuple):
    """What is open, to go on from."""

    watermark_ms: int | None
    seconds: dict[int, Sums]
    minutes: dict[int, Sums]


class WindowMaker:
    """`counters` makes the counters, `saved` is what an earlier one left open. A partition is waited for from
    `add_partition` on.
    """

    def __init__(self, counters: Counters, saved: Saved | None = None) -> None:
        self._counts = {reason: counters(f"samples_{reason}") for reason in REASONS}
        self._partitions: dict[int, Partition] = {}
        watermark_ms = saved.watermark_ms if saved is not None else None
        self._watermark_ms: float = -inf if watermark_ms is None else watermark_ms
        self._counted_at_ms: int | None = None
        # How far the newest frame says that the plant has come, and for how long none has said more.
        self._newest_ms: float = -inf
        self._since_newest_ms = 0
        # By end; emptied by the watermark.
        self._seconds: dict[int, Sums] = saved.seconds if saved is not None else {}
        # By end of the minute; a minute goes once the last window that has it was told.
        self._minutes: dict[int, Sums] = saved.minutes if saved is not None else {}
        self._open_seconds = sum(map(_size, self._seconds.values()))
        self._open_minutes = sum(map(_size, self._minutes.values()))

    def saved(self) -> Saved:
        """What is open now. It goes on being changed: to be packed at once."""
        watermark_ms = None if self._watermark_ms == -inf else int(self._watermark_ms)
        return Saved(watermark_ms, self._seconds, self._minutes)

    def add_partition(self, partition: int) -> None:
        """Wait for it from now on."""
        self._partitions.setdefault(partition, Partition())

    def read_up(self, partition: int) -> None:
        """There is nothing more to read in it."""
        self._partitions[partition].is_read_up = True

    def take(self, frame: Mapping[str, Any], key: str | None, partition: int, now_ms: int) -> None:
        """Take a frame in; what it ended is told by the next `advance`."""
        self._take_samples(frame, key, now_ms)
        clock_ms = max(frame["received_time_ms"], frame["gateway_out_us"] // 1000)
        # The frame's own time, within what its gateway's clock allows, and never beyond ours: one clock that
        # is wrong moves nobody far.
        progress_ms = min(max(frame["event_time_ms"], clock_ms - HOLD_MS), clock_ms, now_ms)
        state = self._partitions[partition]
        # The step that is under way will be counted whole.
        state.silent_ms = -self._step_ms(now_ms)
        state.is_read_up = False
        state.reached_ms = max(state.reached_ms, progress_ms)
        if progress_ms > self._newest_ms:
            self._newest_ms, self._since_newest_ms = progress_ms, state.silent_ms

    def advance(self, now_ms: int) -> Iterator[Ended]:
        """The windows that ended since, in the order of their ends; each is told once."""
        watermark_ms = self._watermark_of(now_ms)
        if watermark_ms <= self._watermark_ms:
            return
        before_ms, self._watermark_ms = self._watermark_ms, watermark_ms
        for end_ms in sorted(end for end in self._seconds if end - 1 <= watermark_ms):
            sums = self._seconds.pop(end_ms)
            self._open_seconds -= _size(sums)
            self._add_to_minute(end_ms, sums)
            yield Ended(ONE_SECOND, end_ms, _values(sums))
        yield from self._end_minutes(before_ms, watermark_ms)

    def _take_samples(self, frame: Mapping[str, Any], key: str | None, now_ms: int) -> None:
        device_id, frame_ms = frame["device_id"], frame["event_time_ms"]
        counts = self._counts
        live = 0
        for metric in frame["metrics"]:
            number = metric["number"]
            time_ms = metric["event_time_ms"]
            if time_ms is None:
                time_ms = frame_ms
            end_ms = time_ms - time_ms % _SECOND_MS + _SECOND_MS
            if key != device_id:
                reason = "of_another_device"
            elif number is None:
                reason = "without_number"
            elif frame["historical"]:
                reason = "historical"
            elif metric["quality"] != QUALITY_GOOD:
                reason = "not_good"
            elif time_ms > now_ms + MAX_AHEAD_MS:
                reason = "ahead"
            elif end_ms - 1 <= self._watermark_ms:
                reason = "late"
            elif not -_LARGEST <= number <= _LARGEST:
                reason = "not_finite"
            elif not self._add(end_ms, device_id, metric["name"], number):
                reason = "without_room"
            else:
                live += 1
                continue
            counts[reason].inc()
        if live:
            counts["live"].inc(live)

    def _add(self, end_ms: int, device_id: str, metric: str, number: float) -> bool:
        metrics = self._seconds.setdefault(end_ms, {}).setdefault(device_id, {})
        sums = metrics.get(metric)
        if sums is not None:
            sums[0] += number
            if number < sums[1]:
                sums[1] = number
            if number > sums[2]:
                sums[2] = number
            sums[3] += 1
            return True
        if self._open_seconds >= OPEN_MAX:
            return False
        self._open_seconds += 1
        metrics[metric] = [number, number, number, 1]
        return True

    def _add_to_minute(self, end_ms: int, seconds: Sums) -> None:
        """Add the windows of a second to its minute, as far as there is room."""
        minute_ms = -(-end_ms // _MINUTE_MS) * _MINUTE_MS
        minute = self._minutes.setdefault(minute_ms, {})
        for device_id, metrics in seconds.items():
            into = minute.setdefault(device_id, {})
            for metric, sums in metrics.items():
                known = into.get(metric)
                if known is not None:
                    _join(known, sums)
                elif self._open_minutes < OPEN_MAX:
                    self._open_minutes += 1
                    into[metric] = list(sums)
                else:
                    self._counts["without_room"].inc(sums[3])

    def _end_minutes(self, before_ms: float, watermark_ms: float) -> Iterator[Ended]:
        # Of windows that have one of the minutes, and were not told yet.
        ends = {minute_ms + n * _MINUTE_MS for minute_ms in self._minutes for n in range(_PANES)}
        for end_ms in sorted(end for end in ends if before_ms < end - 1 <= watermark_ms):
            joined: Sums = {}
            for minute_ms in range(end_ms - (_PANES - 1) * _MINUTE_MS, end_ms + 1, _MINUTE_MS):
                for device_id, metrics in self._minutes.get(minute_ms, {}).items():
                    into = joined.setdefault(device_id, {})
                    for metric, sums in metrics.items():
                        if metric in into:
                            _join(into[metric], sums)
                        else:
                            into[metric] = list(sums)
            yield Ended(FIVE_MINUTES, end_ms, _values(joined))
            gone = self._minutes.pop(end_ms - (_PANES - 1) * _MINUTE_MS, {})
            self._open_minutes -= _size(gone)

    def _watermark_of(self, now_ms: int) -> float:
        """The slowest partition's, of those that are not idle. While all are, the plant is silent, and its
        time goes on with the clock.
        """
        passed_ms = self._step_ms(now_ms)
        self._counted_at_ms = now_ms
        self._since_newest_ms += passed_ms
        reached_ms = inf
        for state in self._partitions.values():
            state.silent_ms += passed_ms
            if not (state.is_read_up and state.silent_ms >= IDLE_MS):
                reached_ms = min(reached_ms, state.reached_ms)
        if reached_ms == inf:
            reached_ms = self._newest_ms + self._since_newest_ms - IDLE_MS
        return reached_ms - GRACE_MS

    def _step_ms(self, now_ms: int) -> int:
        """How much of the time since it was last counted is counted."""
        counted_ms = now_ms if self._counted_at_ms is None else self._counted_at_ms
        return max(0, min(now_ms - counted_ms, STEP_MS))


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Saved)


def pack_open(saved: Saved) -> bytes:
    """Open windows as bytes."""
    return _encoder.encode(saved)


def unpack_open(packed: bytes) -> Saved:
    """The inverse; raises `msgspec.DecodeError` for what `pack_open` did not make."""
    return _decoder.decode(packed)


def _join(into: list[Any], sums: list[Any]) -> None:
    into[0] += sums[0]
    into[1] = min(into[1], sums[1])
    into[2] = max(into[2], sums[2])
    into[3] += sums[3]


def _values(sums: Sums) -> Values:
    return {
        device_id: {metric: WindowValues(*values) for metric, values in metrics.items()}
        for device_id, metrics in sums.items()
        if metrics
    }


def _size(sums: Sums) -> int:
    return sum(map(len, sums.values()))
