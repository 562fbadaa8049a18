"""What the light engine counts, for Prometheus; the names are those of Flink's counters.

In: calls from the other modules. Out: the text of `/metrics`.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

COUNTERS: Final = {
    "alarm_events": "Alarm events told.",
    "alarms_already_published": "Alarm events that Redis had already, by the fast path.",
    "alarms_corrected": "Alarms set right after a restart.",
    "alarms_published": "Alarm events brought to Redis.",
    "alarms_rejected": "Records of alarms.fire that cannot be read.",
    "critical_left_to_kafka": "Critical events that could not go the fast path.",
    "critical_published": "Critical events that went the fast path.",
    "device_clock_steps": "Clocks of devices that were put back.",
    "edge_states_adopted": "States of gateways gone on from.",
    "edge_states_unreadable": "States of gateways that are of another version.",
    "frames_historical": "Frames that were stored and forwarded.",
    "frames_rejected": "Records that are no frame, or cannot be true.",
    "frames_too_late": "Frames too far behind their device's newest.",
    "rules_rejected": "Rules that cannot be evaluated.",
    "samples_ahead": "Samples too far ahead of this machine's clock.",
    "samples_historical": "Samples of historical frames.",
    "samples_late": "Samples whose second was told.",
    "samples_live": "Samples in windows.",
    "samples_not_finite": "Numbers that are none.",
    "samples_not_good": "Samples of another quality than good.",
    "samples_of_another_device": "Samples of frames whose device is not the record's key.",
    "samples_without_number": "Texts and unknown values.",
    "samples_without_room": "Samples beyond the bound of open windows.",
    "silences_unwatched": "Data that are not waited for, for want of room.",
    "telemetry_messages": "Live messages.",
    "values_left_out": "Values not shown: older than what is, or of one metric too many.",
    "windows_already_shown": "Windows that a restart told again.",
    "windows_left_out": "Windows while Redis was away.",
    "windows_shown": "Windows shown.",
    "windows_too_old": "Windows that ended too long ago to be news.",
}
PREFIX: Final = "plantwire_light_"


class LightMetrics:
    """One registry per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lag = Gauge(f"{PREFIX}lag_records", "Records in Kafka that wait.", registry=self.registry)
        self.devices = Gauge(f"{PREFIX}devices", "Devices with a state.", registry=self.registry)

    def counter(self, name: str) -> Counter:
        """The counter of that name; once each."""
        return Counter(PREFIX + name, COUNTERS[name], registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
