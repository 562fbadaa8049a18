"""The metrics of one message, read by the definitions of its birth. Pure.

In: metrics, the `MetricTable` that defines them, and times. Out: `Samples`.
Guarantees: a metric is refused alone: the others of its message are read. Every value is a finite number, a
text within the bound, or null; every time is above 0 and not too far ahead.
Not here: frames (`frames`), single values (`values`).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Final, NamedTuple

from plantwire.gateway.decode_json import TIMESTAMP_MAX_MS
from plantwire.gateway.rejected import Reason
from plantwire.gateway.sparkplug.metric_table import Definition, MetricTable
from plantwire.gateway.sparkplug.outcome import Note
from plantwire.gateway.sparkplug.payload import utf8
from plantwire.gateway.sparkplug.refusals import Refusals
from plantwire.gateway.sparkplug.texts import UnfitError
from plantwire.gateway.sparkplug.values import quality_of, value_of
from plantwire.schemas.records import QUALITY_GOOD
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

Sample = tuple[Definition, float | None, str | None, int, int]
"""(metric, number, text, quality, event time in ms). A plain tuple: there are 50 in a message."""

_DETAIL_NAME_MAX: Final = 64


class Times(NamedTuple):
    """Of one message, ms since the epoch."""

    default_ms: int
    """For metrics without a time: the payload's, or when it was received."""
    latest_ms: int
    """What is later is refused."""
    birth_ms: int | None = None
    """Of a birth: the time at which its values are the current ones."""


class Samples:
    """What one message holds. `live` and `transient` are in the order of the message."""

    __slots__ = ("historical", "live", "notes", "refusals", "repeated", "token", "transient")

    def __init__(self) -> None:
        self.live: list[Sample] = []
        self.transient: list[Sample] = []
        self.historical: list[Sample] = []
        self.repeated = False
        """Whether a metric is among the live or transient ones more than once."""
        self.refusals = Refusals()
        self.notes: list[Note] = []
        self.token = object()
        """What `Definition.seen` is while this message is read."""


def read_samples(
    table: MetricTable, metrics: Iterable[pb.Payload.Metric], times: Times, metrics_max: int
) -> Samples:
    """Read `metrics` of the node or device that `table` is of; `metrics_max` bounds members of templates."""
    samples = Samples()
    reader = _Reader(table, samples, times, metrics_max)
    names, aliases = table.names, table.aliases
    default_ms, latest_ms = times.default_ms, times.latest_ms
    append, token = samples.live.append, samples.token
    good = QUALITY_GOOD
    for metric in metrics:
        name = metric.name
        if name:
            definition = names.get(name)
        else:
            definition = aliases.get(metric.alias) if metric.HasField("alias") else None
        if definition is None:
            reader.refuse_unknown(metric)
            continue
        # The fast path: a plain good live number in a field that its datatype allows.
        field = metric.WhichOneof("value")
        read = definition.readers.get(field)
        if (
            read is not None
            and not metric.is_null
            and not metric.is_historical
            and not metric.is_transient
            and not metric.HasField("properties")
        ):
            number = read(getattr(metric, field))  # type: ignore[arg-type]  # no reader has the key None
            at_ms = metric.timestamp or default_ms
            if number is not None and at_ms <= latest_ms and isfinite(number):
                if definition.seen is token:
                    samples.repeated = True
                else:
                    definition.seen = token
                append((definition, float(number), None, good, at_ms))
                continue
        reader.read(definition, metric, default_ms, False, False, good)
    if times.birth_ms is not None:
        samples.live = _as_of(samples.live, times.birth_ms)
        samples.transient = _as_of(samples.transient, times.birth_ms)
    return samples


class _Reader:
    """The slow path: everything but plain good live numbers."""

    def __init__(self, table: MetricTable, samples: Samples, times: Times, metrics_max: int) -> None:
        self._table = table
        self._samples = samples
        self._times = times
        self._members_left = metrics_max

    def refuse_unknown(self, metric: pb.Payload.Metric) -> None:
        if self._times.birth_ms is None:
            self._samples.refusals.add(
                Reason.UNKNOWN_METRIC, f"The birth did not give the metric {_named(metric)}."
            )
        elif not metric.template_value.is_definition:
            self._samples.refusals.add(
                Reason.INVALID_METRIC_NAME, "A metric of the birth has no name, or one that is not UTF-8."
            )

    def read(
        self,
        definition: Definition,
        metric: pb.Payload.Metric,
        default_ms: int,
        historical: bool,
        transient: bool,
        quality: int,
    ) -> None:
        """Take one metric; the last three come from the template around it."""
        if definition.refusal is not None:
            self._samples.refusals.add(definition.refusal.reason, definition.refusal.detail)
            return
        at_ms = metric.timestamp or default_ms
        if at_ms > self._times.latest_ms:
            self._refuse_time(definition, at_ms)
            return
        historical = historical or metric.is_historical
        transient = transient or metric.is_transient
        if definition.datatype == pb.Template:
            self._read_template(definition, metric, at_ms, historical, transient, quality)
            return
        try:
            number, text, own_quality, note = value_of(definition.datatype, metric)
        except UnfitError as unfit:
            self._samples.refusals.add(
                Reason.INVALID_VALUE,
                f"The value of {definition.name[:_DETAIL_NAME_MAX]!r} does not fit: {unfit}.",
            )
            return
        if note is not None:
            self._samples.notes.append(note)
        sample = (definition, number, text, own_quality if own_quality != QUALITY_GOOD else quality, at_ms)
        self._append(sample, historical, transient)

    def _read_template(
        self,
        definition: Definition,
        metric: pb.Payload.Metric,
        at_ms: int,
        historical: bool,
        transient: bool,
        quality: int,
    ) -> None:
        own_quality, note = quality_of(metric)
        if note is not None:
            self._samples.notes.append(note)
        if own_quality != QUALITY_GOOD:
            quality = own_quality
        if metric.is_null:
            self._read_null(definition, (None, None, quality, at_ms), historical, transient)
            return
        template = metric.template_value
        if not metric.HasField("template_value") or template.is_definition:
            self._samples.refusals.add(
                Reason.INVALID_VALUE,
                f"{definition.name[:_DETAIL_NAME_MAX]!r} has no instance of its Template.",
            )
            return
        for item in template.metrics:
            self._members_left -= 1
            if self._members_left < 0:
                self._samples.refusals.add(Reason.TOO_MANY_METRICS, "Too many members of Templates.")
                return
            found = self._member(definition, item)
            if found is None:
                self.refuse_unknown(item)
            else:
                self.read(found, item, at_ms, historical, transient, quality)

    def _read_null(
        self,
        definition: Definition,
        null: tuple[None, None, int, int],
        historical: bool,
        transient: bool,
    ) -> None:
        for member in definition.members:
            if member.datatype == pb.Template:
                self._read_null(member, null, historical, transient)
            else:
                self._append((member, *null), historical, transient)

    def _member(self, definition: Definition, item: pb.Payload.Metric) -> Definition | None:
        if item.name:
            return self._table.names.get(f"{definition.name}/{utf8(item.name)}")
        return self._table.aliases.get(item.alias) if item.HasField("alias") else None

    def _append(self, sample: Sample, historical: bool, transient: bool) -> None:
        samples = self._samples
        if historical:
            samples.historical.append(sample)
            return
        definition = sample[0]
        if definition.seen is samples.token:
            samples.repeated = True
        else:
            definition.seen = samples.token
        (samples.transient if transient else samples.live).append(sample)

    def _refuse_time(self, definition: Definition, at_ms: int) -> None:
        name = definition.name[:_DETAIL_NAME_MAX]
        if at_ms > TIMESTAMP_MAX_MS:
            self._samples.refusals.add(
                Reason.TIMESTAMP_OUT_OF_RANGE, f"The timestamp of {name!r} is above 2^53 ms."
            )
        else:
            ahead_ms = at_ms - self._times.latest_ms
            self._samples.refusals.add(
                Reason.TIMESTAMP_AHEAD,
                f"The timestamp of {name!r} is {ahead_ms} ms further ahead than allowed.",
            )


def _as_of(samples: list[Sample], birth_ms: int) -> list[Sample]:
    """A birth's values are the current ones (tck-id-operational-behavior-data-publish-*birth-values), however
    long ago they last changed: the last sample of each metric is one of the time of the birth.
    """
    last = {sample[0]: index for index, sample in enumerate(samples)}
    return [
        sample if last[sample[0]] != index or sample[4] >= birth_ms else (*sample[:4], birth_ms)
        for index, sample in enumerate(samples)
    ]


def _named(metric: pb.Payload.Metric) -> str:
    if metric.name:
        return repr((utf8(metric.name) or "(not UTF-8)")[:_DETAIL_NAME_MAX])
    return f"with alias {metric.alias}" if metric.HasField("alias") else "without name and alias"
