"""The metrics that a birth defines, by name and by alias. Pure.

In: the metrics of an NBIRTH or DBIRTH. Out: `MetricTable`, or `Rejected` for a birth that contradicts itself.
Guarantees: a name stands for one metric of its node or device, an alias for one of the whole edge node
(tck-id-payloads-alias-uniqueness). A metric that cannot be carried is in the table with its refusal, so that
its data is refused without asking for the birth again.
Not here: values (`samples`).

A Template's members are metrics of their own, named ``{template}/{member}``. Template definitions are
passed over: an instance's birth repeats every member with its datatype
(tck-id-payloads-template-instance-members-birth).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.numbers import NUMBER_READERS, NumberReader
from plantwire.gateway.sparkplug.payload import utf8
from plantwire.gateway.sparkplug.values import is_metric_datatype
from plantwire.schemas.identifiers import METRIC_NAME_MAX_CHARACTERS, is_metric_name
from plantwire.schemas.records import Metric
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb

TEMPLATE_DEPTH_MAX: Final = 8
_REMEMBERED_NAME_MAX: Final = 1024
_NO_READERS: Final[Mapping[str | None, NumberReader]] = MappingProxyType({})


class Definition:
    """One metric as its birth defined it, and its last value."""

    __slots__ = (
        "alias",
        "datatype",
        "last",
        "last_ms",
        "members",
        "name",
        "readers",
        "refusal",
        "seen",
        "size_bytes",
        "transient",
    )

    def __init__(self, name: str, datatype: int, alias: int | None, refusal: Rejected | None = None) -> None:
        self.name = name
        self.datatype = datatype
        self.alias = alias
        self.refusal = refusal
        """Why its values are not taken; None where they are."""
        self.readers = _NO_READERS if refusal else NUMBER_READERS.get(datatype, _NO_READERS)
        self.members: list[Definition] = []
        """Of a Template: its members, Templates among them."""
        self.last: Metric | None = None
        self.last_ms = 0
        self.transient = False
        """Whether the last value was."""
        self.seen: object = None
        """The message that it was last seen in."""
        self.size_bytes = len(name.encode()) + 32
        """What it adds to a frame at most, its text apart."""


class MetricTable:
    """The metrics of an edge node itself, or of one of its devices."""

    __slots__ = ("aliases", "device_id", "names", "site")

    def __init__(self, device_id: str, site: str) -> None:
        self.device_id = device_id
        self.site = site
        self.names: dict[str, Definition] = {}
        self.aliases: dict[int, Definition] = {}

    def carried(self) -> Iterable[Definition]:
        """The metrics that have values."""
        return (
            definition
            for definition in self.names.values()
            if definition.refusal is None and definition.datatype != pb.Template
        )


class _InvalidBirthError(Exception):
    """Carries a `Rejected` out of the walk."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)


def fill_table(
    table: MetricTable, metrics: Iterable[pb.Payload.Metric], taken: Collection[int], metrics_max: int
) -> Rejected | None:
    """Define `metrics` in the empty `table`. None: done. `taken` are the aliases that the edge node gave to
    other metrics. A refusal leaves the table unusable.
    """
    try:
        _Birth(table, taken, metrics_max).define(metrics, None, 0)
    except _InvalidBirthError as invalid:
        return invalid.rejected
    return None


class _Birth:
    """One walk over a birth's metrics."""

    def __init__(self, table: MetricTable, taken: Collection[int], metrics_max: int) -> None:
        self._table = table
        self._taken = taken
        self._left = self._metrics_max = metrics_max

    def define(self, metrics: Iterable[pb.Payload.Metric], parent: Definition | None, depth: int) -> None:
        for metric in metrics:
            self._left -= 1
            if self._left < 0:
                raise _InvalidBirthError(
                    Reason.TOO_MANY_METRICS, f"A birth of more than {self._metrics_max} metrics."
                )
            if metric.template_value.is_definition:
                continue
            definition = self._define(metric, parent)
            if definition is None or definition.refusal is not None:
                continue
            if parent is not None:
                parent.members.append(definition)
            if definition.datatype != pb.Template:
                continue
            if depth >= TEMPLATE_DEPTH_MAX:
                definition.refusal = Rejected(
                    Reason.INVALID_VALUE,
                    f"Templates nested more than {TEMPLATE_DEPTH_MAX} deep in {definition.name[:64]!r}.",
                )
                continue
            self.define(metric.template_value.metrics, definition, depth + 1)

    def _define(self, metric: pb.Payload.Metric, parent: Definition | None) -> Definition | None:
        own = utf8(metric.name)
        alias = metric.alias if metric.HasField("alias") else None
        name = own if parent is None or not own else f"{parent.name}/{own}"
        if not name or not own or len(name) > _REMEMBERED_NAME_MAX:
            # No name to remember it by; its alias may still come.
            definition = Definition("", metric.datatype, alias, _bad_name(own))
            self._note_alias(definition)
            return None
        known = self._table.names.get(name)
        if known is not None:
            # A second sample of one metric; its definition must be the same.
            if known.alias != alias or known.datatype != metric.datatype:
                raise _InvalidBirthError(
                    Reason.INVALID_BIRTH, f"The birth defines {name[:64]!r} twice, each time differently."
                )
            return known
        refusal = None
        if not is_metric_name(name):
            refusal = _bad_name(name)
        elif not is_metric_datatype(metric.datatype):
            refusal = Rejected(
                Reason.INVALID_VALUE,
                f"{name[:64]!r} has datatype {metric.datatype}, which no metric can have.",
            )
        definition = Definition(name, metric.datatype, alias, refusal)
        self._note_alias(definition)
        self._table.names[name] = definition
        return definition

    def _note_alias(self, definition: Definition) -> None:
        alias = definition.alias
        if alias is None:
            return
        if alias in self._taken or alias in self._table.aliases:
            raise _InvalidBirthError(
                Reason.INVALID_BIRTH, f"The alias {alias} is given to two metrics of the edge node."
            )
        self._table.aliases[alias] = definition


def _bad_name(name: str | None) -> Rejected:
    return Rejected(
        Reason.INVALID_METRIC_NAME,
        f"A metric name is 1 to {METRIC_NAME_MAX_CHARACTERS} printable characters, "
        f"unlike {(name or '')[:64]!r}.",
    )
