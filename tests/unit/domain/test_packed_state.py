"""A packed alarm state comes back whole, and bytes from outside that are none are refused by name."""

from __future__ import annotations

import msgspec
import pytest

from plantwire.domain.alarm_events import Alarm
from plantwire.domain.detection import DeviceDetector, DeviceState, Tracked
from plantwire.domain.limits import ABOVE, NORMAL, LimitPart, LimitState
from plantwire.domain.packed_state import UnknownLayoutError, Unpacked, pack, unpack, unpack_with_clock
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import QUALITY_GOOD, AlarmRule, Limit

NOW_MS = 1_700_000_000_000
ALARM = Alarm("a", revision=1, raise_ms=NOW_MS, raises=1, severity=0)
ACTIVE = LimitState(0, NOW_MS, (LimitPart(0, ABOVE),))


def state_of(tracked: Tracked) -> DeviceState:
    return {("rule", "metric"): tracked}


def test_what_a_detector_remembers_comes_back() -> None:
    rules = [
        AlarmRule("at-once", 1, "*", "t", (Limit(0, above=10.0), Limit(1, above=5.0, deadband=1.0))),
        AlarmRule("delayed", 1, "*", "t", (Limit(2, above=10.0),), on_delay_ms=5000),
    ]
    detector = DeviceDetector("press-1", RuleBook(rules).for_device("press-1"))
    for number in (50.0, 7.0, 0.0):
        detector.take_frame(
            {
                "device_id": "press-1",
                "site": "hall",
                "event_time_ms": NOW_MS,
                "metrics": [{"name": "t", "number": number, "quality": QUALITY_GOOD, "event_time_ms": None}],
            },
            NOW_MS,
        )
        assert detector.state
        assert unpack(pack("hall", detector.state)) == ("hall", detector.state)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\x02",
        b"\x01",
        b"\x01\xff",
        b"\x01" + msgspec.msgpack.encode(("hall", [("rule", "metric")])),
        b"\x03",
        b"\x02\xff",
        b"\x02" + msgspec.msgpack.encode(("hall", [("rule", "metric")])),
        # Names that are not UTF-8.
        b"\x01\x92\xa1\xff\x90",
        b"\x01\x92\xa0\x91\x93\xa1\xff\xa1t\xc0",
    ],
)
def test_bytes_that_are_no_state_are_refused(packed: bytes) -> None:
    with pytest.raises(UnknownLayoutError):
        unpack(packed)


@pytest.mark.parametrize(
    "tracked",
    [
        # A level in force without its alarm; levels and severities that there are not.
        Tracked(ACTIVE, None),
        Tracked(ACTIVE._replace(level=7), ALARM),
        Tracked(ACTIVE._replace(parts=(LimitPart(5, ABOVE),)), ALARM),
        Tracked(ACTIVE, ALARM._replace(severity=-1)),
        # Counts and times that do not fit what is written of them.
        Tracked(ACTIVE, ALARM._replace(revision=2**31 - 1)),
        Tracked(ACTIVE, ALARM._replace(raises=0)),
        Tracked(ACTIVE, ALARM._replace(raise_ms=2**63)),
        Tracked(ACTIVE, ALARM, newest_ms=2**63),
        Tracked(LimitState(NORMAL, 2**63), None),
        # A silence that has limits; one that no time can be added to.
        Tracked(ACTIVE, ALARM, silence=True),
        Tracked(LimitState(), None, 2**62, True),
    ],
)
def test_a_state_that_no_detector_can_be_in_is_refused(tracked: Tracked) -> None:
    packed = pack("hall", state_of(tracked))
    with pytest.raises(UnknownLayoutError, match="contradicts itself"):
        unpack(packed)
    assert unpack(pack("hall", state_of(Tracked(ACTIVE, ALARM, NOW_MS))))


SILENCES: DeviceState = {
    ("lost", "t"): Tracked(LimitState(), None, NOW_MS, True),
    ("lost", ""): Tracked(LimitState(1, NOW_MS), ALARM._replace(severity=1), NOW_MS, True),
    ("hot", "t"): Tracked(ACTIVE, ALARM, NOW_MS),
}


def test_silences_come_back_with_the_devices_clock() -> None:
    assert unpack_with_clock(pack("hall", SILENCES, -1500)) == Unpacked("hall", SILENCES, -1500)
    with pytest.raises(UnknownLayoutError, match="contradicts itself"):
        unpack(pack("hall", SILENCES, 2**62))


def test_a_state_of_the_first_layout_is_still_read() -> None:
    """Bytes as they lie in savepoints, written before data could be waited for."""
    stored = bytes.fromhex(
        "0192a468616c6c9193a472756c65a66d6574726963939300cf0000018bcfe56800919500010000cb000000000000000095a161"
        "01cf0000018bcfe568000100cf0000018bcfe56800"
    )
    state = state_of(Tracked(ACTIVE, ALARM, NOW_MS))
    assert unpack_with_clock(stored) == Unpacked("hall", state, None)
    # What it can say is still written in it, and read by the former version.
    assert pack("hall", state, 77) == stored
