"""What alarm detection makes of a session's frames: reordering, deaths, rebirths."""

from __future__ import annotations

import msgspec

from plantwire.domain.detection import DeviceDetector
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.sparkplug.outcome import Outcome
from plantwire.schemas.records import AlarmRule, Limit
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from tests.unit.gateway.sparkplug.edge_node_messages import (
    NOW_MS,
    PRESS_ID,
    Plant,
    bdseq,
    metric,
    node_birth,
    payload,
    press_birth,
    temperature,
)

HOT = AlarmRule("hot", 1, "*", "temperature", (Limit(0, above=100.0, deadband=2.0),))


class Detection:
    """Detection for `press`, fed with what comes of each message."""

    def __init__(self) -> None:
        self.plant = Plant().born()
        self.detector = DeviceDetector(PRESS_ID, RuleBook([HOT]).for_device(PRESS_ID))

    def take(self, kind: str, data: bytes) -> list[str]:
        return self.follow(self.plant.take(kind, data))

    def follow(self, outcome: Outcome) -> list[str]:
        return [
            event.kind
            for frame in outcome.frames
            if frame.device_id == PRESS_ID and not frame.historical
            for event in self.detector.take_frame(msgspec.to_builtins(frame), self.plant.wall_ms)
        ]


def test_a_violation_in_a_message_after_a_gap_raises_at_once() -> None:
    detection = Detection()
    assert detection.take("DDATA", temperature(120.0, 7, NOW_MS + 7)) == ["RAISED"]


def test_an_alarm_in_a_late_message_does_not_outlive_the_newer_value() -> None:
    detection = Detection()
    assert detection.take("DDATA", temperature(20.0, 3, NOW_MS + 3)) == []
    assert detection.take("DDATA", temperature(120.0, 2, NOW_MS + 2)) == ["RAISED", "CLEARED"]


def test_an_alarm_stays_while_its_device_is_stale_and_ends_with_a_good_value() -> None:
    detection = Detection()
    assert detection.take("DDATA", temperature(120.0, 2, NOW_MS + 2)) == ["RAISED"]
    detection.plant.pass_ms(1000)
    assert detection.take("NDEATH", payload([bdseq(0)])) == []
    detection.plant.pass_ms(100)
    # Its clock is half a second behind.
    at_ms = NOW_MS + 600
    assert detection.take("NBIRTH", node_birth(bd=1, at_ms=at_ms)) == []
    assert detection.take("DBIRTH", press_birth(1, at_ms)) == ["CLEARED"]


def test_a_birth_raises_what_began_long_before_it() -> None:
    detection = Detection()
    detection.plant.pass_ms(600_000)
    # Above the limit for ten minutes, of which nobody heard; it has not changed since.
    hot = metric("temperature", pb.Double, 120.0, alias=2, at_ms=NOW_MS + 1000)
    assert detection.take("DBIRTH", payload([hot], 2, NOW_MS + 600_000)) == ["RAISED"]
    assert detection.take("DDATA", temperature(20.0, 3, NOW_MS + 600_001)) == ["CLEARED"]
