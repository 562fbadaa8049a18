"""The light engine and the Flink job, given the same frames and rules: the same alarms."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from plantwire.schemas import topics
from plantwire.schemas.codec import ALARM_CODEC, FRAME_CODEC
from plantwire.schemas.records import (
    QUALITY_BAD,
    AlarmEvent,
    AlarmRule,
    Limit,
    Metric,
    Missing,
    TelemetryFrame,
)
from plantwire.schemas.severity import Severity
from tests.integration.light.light_rig import LightPlant, light_plant
from tests.topology.cluster import Cluster, now_ms
from tests.topology.conftest import RULES

CRITICAL, HIGH, LOW = int(Severity.CRITICAL), int(Severity.HIGH), int(Severity.LOW)
LIMITS = (Limit(HIGH, above=5, below=-5),)
OWN_RULES = (
    AlarmRule(
        "twin-hot",
        1,
        "twin-*",
        "t",
        (Limit(CRITICAL, above=100, deadband=2), Limit(HIGH, above=90, deadband=2)),
    ),
    AlarmRule("twin-slow", 1, "twin-*", "p", LIMITS, on_delay_ms=16_000, off_delay_ms=28_000),
    AlarmRule("twin-lost", 1, "twin-*", "p", (), missing=(Missing(LOW, 80_000), Missing(HIGH, 120_000))),
)
DEVICES, FRAMES = 12, 80
STEP_MS = 10_000
"""Much longer than any pause of the machine: delays end by the next frames, not by the timers of either
engine, which go by the time of arrival.
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightPlant]:
    with light_plant(tmp_path_factory.mktemp("twin")) as site:
        site.publish_rules(*RULES, *OWN_RULES)
        site.start_engine()
        yield site


def frames(seed: int, base_ms: int) -> list[tuple[str, bytes | None, int]]:
    """(key, body, Kafka's time) in order of arrival: walks over limits, silent, late, historical, broken."""
    chance = random.Random(seed)
    sent: list[tuple[str, bytes | None, int]] = []
    level = {n: [80.0, 0.0] for n in range(DEVICES)}
    for step in range(FRAMES):
        for n in range(DEVICES):
            device_id = f"twin-{n}"
            at_ms = base_ms + step * STEP_MS + n
            hot, pressure = level[n] = [
                min(120.0, max(70.0, level[n][0] + chance.uniform(-15, 15))),
                min(9.0, max(-9.0, level[n][1] + chance.uniform(-4, 4))),
            ]
            if n % 3 == 0 and 30 <= step < 50:
                continue
            kind = chance.random()
            if kind < 0.05:
                at_ms -= chance.choice((3000, 12_000, 65_000))
            metrics = (Metric("t", hot), Metric("p", pressure, quality=QUALITY_BAD if kind > 0.95 else 192))
            frame = TelemetryFrame(
                device_id, "hall", step, at_ms, at_ms, "http", kind > 0.9, metrics, at_ms * 1000, at_ms * 1000
            )
            sent.append((device_id, FRAME_CODEC.encode(frame), at_ms))
            if 0.4 < kind < 0.45:
                sent.append((device_id, sent[-1][1], at_ms))  # told twice
            if kind < 0.02:
                sent.append((device_id, b"\x00garbage", at_ms))
    return sent


def told(cluster: Cluster) -> dict[tuple[str, int], AlarmEvent]:
    """(id, revision) → the event of a twin, without what the clock of the machine says."""
    found: dict[tuple[str, int], AlarmEvent] = {}
    for key, body, _ in cluster.read(topics.ALARMS_FIRE):
        if key is not None and key.startswith("twin-"):
            event = ALARM_CODEC.decode(body)
            event = msgspec.structs.replace(
                event,
                detect_in_us=0,
                detect_out_us=0,
                published_us=0,
                device_us=0,
                gateway_in_us=0,
                gateway_out_us=0,
            )
            found.setdefault((event.alarm_id, event.revision), event)
    return found


def test_both_engines_tell_the_same_alarms_of_the_same_frames(cluster: Cluster, site: LightPlant) -> None:
    cluster.publish_rules(*OWN_RULES)
    for plant in (cluster, site):
        # The rules are in force once a device of their own says so.
        tries: list[int] = []

        def in_force(plant: Cluster = plant, tries: list[int] = tries) -> bool:
            tries.append(plant.send(f"twin-try-{len(tries)}", t=150))
            return any(event.device_id.startswith("twin-try") for event in told(plant).values())

        plant.until(in_force, 20, "the rules are in force")
    base_ms = now_ms() - FRAMES * STEP_MS - 300_000
    sent = frames(7, base_ms)
    for plant in (cluster, site):
        plant.produce_all(topics.TELEMETRY_RAW, sent)
    # What ends all of it, in each partition of both.
    end_ms = base_ms + FRAMES * STEP_MS + 200_000
    for n in range(DEVICES):
        for plant in (cluster, site):
            plant.send(f"twin-{n}", end_ms - 100_000, t=75, p=0)
            plant.send(f"twin-{n}", end_ms, t=150, p=0)

    def all_ended(plant: Cluster) -> bool:
        events = told(plant).values()
        ends = {e.device_id for e in events if e.event_time_ms == end_ms and e.rule_id == "twin-hot"}
        return len(ends) == DEVICES

    for plant in (cluster, site):
        plant.until(lambda plant=plant: all_ended(plant), 40, "all frames are judged")
    own = [
        {key: e for key, e in told(plant).items() if not e.device_id.startswith("twin-try")}
        for plant in (cluster, site)
    ]
    for key, event in own[0].items():
        assert own[1].get(key) == event
    assert own[0].keys() == own[1].keys()
    kinds = {(e.rule_id, e.kind) for e in own[0].values()}
    assert {(rule.rule_id, kind) for rule in OWN_RULES for kind in ("RAISED", "CLEARED")} <= kinds
    assert ("twin-hot", "SEVERITY_CHANGED") in kinds
    assert ("twin-lost", "SEVERITY_CHANGED") in kinds
    assert len(own[0]) > 100
