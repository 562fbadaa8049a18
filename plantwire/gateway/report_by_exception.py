"""Report by exception for all devices of this gateway: the `Thinning` of the intake.

In: live frames in order of arrival; deadbands from a file; the rules in force. Out: frames with what is worth
sending on.
Guarantees: while no rules were ever received nothing is left out, since nobody knows what an alarm is. Every
metric's next value goes on when rules change, when a frame was not taken, and when Kafka is back after frames
of the device went to the buffer: the cloud has those as history only. At most `metrics_max` metrics are
remembered; those of the device heard longest ago go first, and its next values go on, as after a restart.
Not here: what is worth it (`domain.report_by_exception`), the file's form (`reporting_file`), where rules
come from (`edge_alarms.rule_follower`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from plantwire.domain.report_by_exception import DeadbandBook, DeviceReports, MetricPlan, calm_of
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.reporting_file import parse_reporting
from plantwire.schemas.records import TelemetryFrame
from plantwire.schemas.rule_files import Refused


class RulesInForce(Protocol):
    """Whoever knows the rules."""

    @property
    def book(self) -> RuleBook | None:
        """The rules in force; None while none were ever received."""


class ThinningMetrics:
    """What is counted, on the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.left_out = Counter(
            "plantwire_gateway_values_left_out",
            "Values that said nothing new and were not sent on.",
            registry=registry,
        )
        self.remembered = Gauge(
            "plantwire_gateway_reporting_metrics_remembered",
            "Metrics of devices whose last value is remembered.",
            registry=registry,
        )


class _Device:
    """A device with the rules that it was planned by."""

    __slots__ = ("generation", "has_spilled", "reports", "size")

    def __init__(self, reports: DeviceReports | None, generation: int) -> None:
        self.reports = reports
        """None where no deadband is for the device."""
        self.generation = generation
        self.has_spilled = False
        self.size = 1


class Thinner:
    """Used from the event loop's thread only. `is_live` tells whether Kafka takes frames at once."""

    def __init__(
        self,
        deadbands: DeadbandBook,
        rules: RulesInForce,
        metrics: ThinningMetrics,
        metrics_max: int,
        is_live: Callable[[], bool],
    ) -> None:
        self._deadbands = deadbands
        self._rules = rules
        self._metrics = metrics
        self._metrics_max = metrics_max
        self._is_live = is_live
        # Heard longest ago first; cleared from there by `_make_room`.
        self._devices: OrderedDict[str, _Device] = OrderedDict()
        self._remembered = 0
        self._book: RuleBook | None = None
        self._book_generation = 0
        # Counts changes of the rules, whichever book they are in.
        self._generation = 0

    def thin(self, frame: TelemetryFrame) -> TelemetryFrame | None:
        """See `intake.Thinning.thin`."""
        book = self._rules.book
        if book is None or frame.historical:
            return frame
        if book is not self._book or book.generation != self._book_generation:
            self._book, self._book_generation = book, book.generation
            self._generation += 1
        device = self._devices.get(frame.device_id)
        if device is None:
            device = self._remember(frame.device_id, book)
        else:
            self._devices.move_to_end(frame.device_id)
        reports = device.reports
        if reports is None:
            return frame
        if device.generation != self._generation:
            device.generation = self._generation
            reports.forget_told(
                self._plans(frame.device_id, book), is_awaited=_is_awaited(frame.device_id, book)
            )
        if device.has_spilled and self._is_live():
            device.has_spilled = False
            reports.forget_told()
        left_out = reports.left_out
        thinned = reports.take(frame)
        if reports.left_out != left_out:
            self._metrics.left_out.inc(reports.left_out - left_out)
        if len(reports) + 1 != device.size:
            self._remembered += len(reports) + 1 - device.size
            device.size = len(reports) + 1
            self._make_room()
        return thinned

    def forget(self, device_id: str) -> None:
        """See `intake.Thinning.forget`."""
        device = self._devices.get(device_id)
        if device is not None and device.reports is not None:
            device.reports.forget_told()

    def on_spilled(self, device_id: str, _order: int) -> None:
        """A frame of the device may reach the cloud as history only, which may move no live value."""
        device = self._devices.get(device_id)
        if device is not None:
            device.has_spilled = True

    def on_delivered_with_state(self, device_id: str, _order: int) -> None:
        """Edge detection's; what carries its state goes on whole anyway."""

    def _remember(self, device_id: str, book: RuleBook) -> _Device:
        has_deadbands = self._deadbands.for_device(device_id) is not None
        reports = (
            DeviceReports(self._plans(device_id, book), is_awaited=_is_awaited(device_id, book))
            if has_deadbands
            else None
        )
        device = self._devices[device_id] = _Device(reports, self._generation)
        self._remembered += 1
        self._make_room()
        return device

    def _plans(self, device_id: str, book: RuleBook) -> Callable[[str], MetricPlan | None]:
        deadband_of = self._deadbands.for_device(device_id)
        rules = book.for_device(device_id)

        def plan_of(metric: str) -> MetricPlan | None:
            awaited = bool(rules.silences_of(metric))
            deadband = deadband_of(metric) if deadband_of is not None and not awaited else None
            calm = calm_of(rules.for_metric(metric))
            return MetricPlan(deadband, calm) if deadband is not None or calm is not None else None

        return plan_of

    def _make_room(self) -> None:
        """Forget devices, but for the one that is being heard."""
        while self._remembered > self._metrics_max and len(self._devices) > 1:
            _, forgotten = self._devices.popitem(last=False)
            self._remembered -= forgotten.size
        self._metrics.remembered.set(self._remembered)


def _is_awaited(device_id: str, book: RuleBook) -> bool:
    return book.for_device(device_id).watch_silence


def read_reporting(file: Path) -> DeadbandBook:
    """The deadbands of a file; raises SystemExit with every line that is wrong."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"PLANTWIRE_GATEWAY_REPORTING_FILE: {file} cannot be read: {error}.") from None
    parsed = parse_reporting(text, str(file))
    if isinstance(parsed, Refused):
        raise SystemExit("\n".join(str(problem) for problem in parsed.problems))
    return parsed
