"""The rules of rules/*.yaml on simulated values, by the code that evaluates them in production."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import QUALITY_GOOD, AlarmEvent, AlarmRule
from plantwire.schemas.rule_files import Refused, parse_rules

RULES_FOLDER = Path(__file__).parents[3] / "rules"
EPOCH_MS = 1_700_000_000_000


def rules_in(name: str) -> list[AlarmRule]:
    """The rules of one file of rules/, in version 1."""
    parsed = parse_rules((RULES_FOLDER / name).read_text("utf-8"), name)
    assert not isinstance(parsed, Refused), [str(problem) for problem in parsed.problems]
    return [replace(rule, version=1) for rule in parsed]


class Watch:
    """One device under the rules of a file."""

    def __init__(self, device_id: str, rules: Iterable[AlarmRule]) -> None:
        self._detector = DeviceDetector(device_id, RuleBook(rules).for_device(device_id))

    def see(self, t_s: float, metrics: dict[str, float]) -> list[AlarmEvent]:
        """The events of a frame at `t_s`; event times count from EPOCH_MS."""
        at_ms = EPOCH_MS + round(t_s * 1000)
        return self._detector.take_frame(
            {
                "device_id": self._detector.device_id,
                "site": "",
                "event_time_ms": at_ms,
                "metrics": [
                    {"name": name, "number": value, "quality": QUALITY_GOOD, "event_time_ms": None}
                    for name, value in metrics.items()
                ],
            },
            at_ms,
        )
