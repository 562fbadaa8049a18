"""When a silent device is looked at again."""

from __future__ import annotations

from plantwire.domain.attention import HOUSEKEEPING_MS, next_look_ms
from plantwire.domain.detection import DeviceDetector, DeviceState
from plantwire.domain.rule_book import RuleBook
from plantwire.schemas.records import AlarmRule, Limit

SLOW = AlarmRule("slow", 1, "*", "pressure", (Limit(1, above=5),), on_delay_ms=500)
AT_MS = 1_000_000


def delayed() -> DeviceState:
    """A delay that ends at AT_MS + 500 of the device's time."""
    detector = DeviceDetector("d", RuleBook((SLOW,)).for_device("d"))
    detector.take_readings([("pressure", 6.0, AT_MS)], AT_MS, "", AT_MS)
    return detector.state


def test_with_nothing_to_remember_never() -> None:
    assert next_look_ms({}, 0, AT_MS) is None


def test_a_delay_ends_by_the_devices_own_clock() -> None:
    assert next_look_ms(delayed(), 0, AT_MS) == AT_MS + 500
    # The device's clock is a second ahead: by ours it is that much earlier, but never past.
    assert next_look_ms(delayed(), 1000, AT_MS - 1000) == AT_MS - 500
    assert next_look_ms(delayed(), 0, AT_MS + 9000) == AT_MS + 9000


def test_a_device_in_alarm_is_looked_at_in_time_whatever_its_clock_says() -> None:
    assert next_look_ms(delayed(), -10 * HOUSEKEEPING_MS, AT_MS) == AT_MS + HOUSEKEEPING_MS


def test_silence_is_asked_for_before_the_next_housekeeping_if_it_must_be() -> None:
    assert next_look_ms(delayed(), 0, AT_MS, 300) == AT_MS + 300
    assert next_look_ms(delayed(), 0, AT_MS, 1000) == AT_MS + 500
    assert next_look_ms({}, 0, AT_MS, 300) is None
    long = -10 * HOUSEKEEPING_MS
    assert next_look_ms(delayed(), long, AT_MS, 2 * HOUSEKEEPING_MS) == AT_MS + HOUSEKEEPING_MS
