"""The light engine as real processes on real servers: alarms, values, windows; killed, stopped, cut off."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from plantwire.schemas import topics
from plantwire.schemas.records import AlarmRule, Limit, Missing
from plantwire.schemas.severity import Severity
from tests.integration.light.light_rig import EngineProcess, LightPlant
from tests.topology.cluster import now_ms

CRITICAL, HIGH = int(Severity.CRITICAL), int(Severity.HIGH)


def test_frames_become_alarms_with_their_hops(plant: LightPlant) -> None:
    with plant.redis.pubsub() as channels:
        channels.subscribe(topics.CHANNEL_CRITICAL, topics.CHANNEL_CLEARED)
        for value in (50, 95, 101, 102, 50):
            plant.send("press-1", temperature=value)
        events = plant.wait_for_kinds("press-1", ["RAISED", "SEVERITY_CHANGED", "CLEARED"])
        announced = []
        while len(announced) < 2:
            message = channels.get_message(timeout=10)
            assert message is not None, announced
            if message["type"] == "message":
                announced.append((message["channel"], json.loads(message["data"])["revision"]))
    assert [(e.severity, e.revision, e.value) for e in events] == [
        (HIGH, 1, 95),
        (CRITICAL, 2, 101),
        (CRITICAL, 3, 50),
    ]
    critical = events[1]
    assert 0 < critical.gateway_out_us <= critical.detect_in_us <= critical.detect_out_us
    assert critical.detect_out_us <= critical.published_us
    assert announced == [(topics.CHANNEL_CRITICAL, 2), (topics.CHANNEL_CLEARED, 3)]


def test_an_event_that_is_not_critical_reaches_redis_by_the_log(plant: LightPlant) -> None:
    plant.send("press-2", temperature=95)
    (event,) = plant.wait_for_kinds("press-2", ["RAISED"])

    def is_active() -> bool:
        return bool(plant.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id))

    plant.until(is_active, 5, "the alarm is in Redis")


def test_what_cannot_be_read_goes_to_the_dead_letter_topic_and_disturbs_nothing(plant: LightPlant) -> None:
    plant.send_bytes("press-3", b"garbage")
    plant.send_bytes(None, b"no key")
    plant.send_bytes("press-3", None)
    plant.send("press-3", now_ms() + 30 * 60 * 1000, temperature=101)
    plant.send("press-3", historical=True, temperature=101)
    plant.send("press-3", temperature=95)
    plant.wait_for_kinds("press-3", ["RAISED"])

    def reasons() -> list[tuple[str | None, str]]:
        letters = plant.read(topics.TELEMETRY_DLQ)
        found = [(k, h[topics.HEADER_REASON].decode().split(":")[0]) for k, _, h in letters]
        return sorted(found, key=str)

    wanted = [(None, "undecodable"), *[("press-3", "undecodable")] * 2, ("press-3", "timestamp-ahead")]
    plant.until(lambda: reasons() == sorted(wanted, key=str), 10, "four dead letters")


def test_delays_and_silences_end_without_a_further_frame(plant: LightPlant) -> None:
    rules = (Limit(CRITICAL, above=10),)
    plant.publish_rules(
        AlarmRule("lost", 1, "lost-*", "", (), missing=(Missing(HIGH, 1000),)),
        AlarmRule("told", 1, "told-*", "level", rules),
    )
    _wait_for_rule(plant, "told")
    sent_ms = plant.send("tank-1", pressure=6)
    last_ms = plant.send("lost-1", level=1)
    (silent,) = plant.wait_for_kinds("lost-1", ["RAISED"])
    assert silent.event_time_ms == last_ms + 1000
    plant.send("lost-1", level=1)
    plant.wait_for_kinds("lost-1", ["RAISED", "CLEARED"])
    (event,) = plant.wait_for_kinds("tank-1", ["RAISED"])
    assert event.event_time_ms == sent_ms + 3000


def test_a_rule_is_withdrawn_and_another_deleted_without_a_restart(plant: LightPlant) -> None:
    limits = (Limit(CRITICAL, above=10),)
    rule = AlarmRule("swap", 1, "swap-*", "level", limits)
    plant.publish_rules(AlarmRule("gone", 1, "gone-*", "level", limits), rule)
    _wait_for_rule(plant, "swap")
    for device_id in ("swap-1", "gone-1"):
        plant.send(device_id, level=11)
        plant.wait_for_kinds(device_id, ["RAISED"])
    plant.publish_rules(AlarmRule("swap", 2, "swap-*", "level", limits, retired=True))
    plant.produce(topics.ALARMS_RULES, "gone", None)

    def are_cleared() -> bool:
        for device_id in ("swap-1", "gone-1"):
            plant.send(device_id, level=11)
        alarms = plant.alarms_of_all()
        return all([e.kind for e in alarms[d]] == ["RAISED", "CLEARED"] for d in ("swap-1", "gone-1"))

    plant.until(are_cleared, 10, "the alarms clear")


def _wait_for_rule(plant: LightPlant, rule_id: str) -> None:
    """Until a device that it applies to raises its alarm; each try is a device of its own."""
    tries: list[int] = []

    def in_force() -> bool:
        tries.append(plant.send(f"{rule_id}-try-{len(tries)}", level=11))
        return any(device_id.startswith(f"{rule_id}-try") for device_id in plant.alarms_of_all())

    plant.until(in_force, 10, "the rule is in force")


def test_values_and_windows_are_shown(plant: LightPlant) -> None:
    start_ms = now_ms() // 1000 * 1000 + 1000
    with plant.windows() as announced:
        for offset, number in ((800, 5.0), (0, 3.0), (999, 9.0)):
            plant.send("line-1", start_ms + offset, flow=number)
        plant.send("line-1", start_ms + 1000, flow=1.0)

        def told() -> bool:
            plant.send(f"pulse-{time.time_ns() % 16}", beat=1)
            return ("line-1", "1s", start_ms) in announced()

        plant.until(told, 5, "the window is told")
        assert now_ms() - start_ms - 1000 < 1000
        wanted = {"avg": 17 / 3, "min": 3.0, "max": 9.0, "sum": 17.0, "count": 3}
        assert announced()["line-1", "1s", start_ms] == {"flow": wanted}
    shown = json.loads(plant.redis.hget("window:1s:device:line-1", "flow"))
    assert shown == {"start": start_ms, "end": start_ms + 1000, **wanted}
    plant.until(
        lambda: plant.redis.hgetall(topics.PREFIX_STATE + "line-1") == {"flow": "1.0"}, 5, "the newest value"
    )


def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(plant: LightPlant) -> None:
    devices = [f"press-k{n}" for n in range(60)]
    for index, device in enumerate(devices):
        plant.send(device, temperature=101)
        plant.send(device, pressure=6)
        if index % 20 == 10:
            plant.detection.kill()
            plant.detection.start()

    def have(number: int) -> bool:
        alarms = plant.alarms_of_all()
        return all(len(alarms.get(d, ())) == number for d in devices)

    # Delays that ran when it was killed end as well.
    plant.until(lambda: have(2), 30, "every alarm")
    plant.detection.kill()
    for device in devices:
        plant.send(device, temperature=50, pressure=1)
    plant.detection.start()
    plant.until(lambda: have(4), 30, "every clear")
    alarms = plant.alarms_of_all()
    for device in devices:
        # Equal (id, revision) pairs are folded: an id per rule means that what was told again carried it.
        assert {e.rule_id for e in alarms[device]} == {"over-temperature", "slow-pressure"}
        assert len({e.alarm_id for e in alarms[device]}) == 2
        assert sorted(e.kind for e in alarms[device]) == ["CLEARED", "CLEARED", "RAISED", "RAISED"]
    assert plant.detection.count("alarms_corrected") == 0


def test_a_stop_keeps_what_is_open(plant: LightPlant) -> None:
    plant.send("press-4", temperature=101)
    (raised,) = plant.wait_for_kinds("press-4", ["RAISED"])
    delayed_ms = plant.send("tank-4", pressure=6)
    plant.detection.stop()
    assert plant.detection.exit_code is None  # gone, and not by a signal
    plant.send("press-4", temperature=50)
    plant.detection.start()
    cleared = plant.wait_for_kinds("press-4", ["RAISED", "CLEARED"])[-1]
    assert (cleared.alarm_id, cleared.revision) == (raised.alarm_id, 2)
    (event,) = plant.wait_for_kinds("tank-4", ["RAISED"])
    assert event.event_time_ms == delayed_ms + 3000


def test_a_frame_that_waited_interrupts_a_delay_before_its_timer_ends_it(plant: LightPlant) -> None:
    sent_ms = plant.send("press-t", pressure=6, temperature=101)
    plant.wait_for_kinds("press-t", ["RAISED"])
    plant.detection.stop()
    plant.send("press-t", sent_ms + 500, pressure=1)
    plant.until(lambda: now_ms() > sent_ms + 3500, 10, "the delay is over")
    plant.detection.start()
    plant.send("press-5", temperature=101)
    plant.wait_for_kinds("press-5", ["RAISED"])
    plant.send("press-t", pressure=1, temperature=50)
    events = plant.wait_for_kinds("press-t", ["RAISED", "CLEARED"])
    assert {event.rule_id for event in events} == {"over-temperature"}


def test_while_redis_is_away_alarms_go_on_and_values_wait(plant: LightPlant) -> None:
    plant.redis_server.clear_away()  # kill -9; it starts empty
    plant.send("press-6", temperature=101)
    (event,) = plant.wait_for_kinds("press-6", ["RAISED"])
    plant.send("pump-6", flow=6)
    assert event.published_us == 0
    plant.redis_server.start()
    plant.redis_server.wait_ready(10)

    def is_shown() -> bool:
        values = plant.redis.hgetall(topics.PREFIX_STATE + "pump-6")
        return values == {"flow": "6.0"} and bool(
            plant.redis.hexists(topics.KEY_ACTIVE_ALARMS, event.alarm_id)
        )

    plant.until(is_shown, 20, "all is shown")
    assert plant.live.pid is not None


def test_a_second_engine_in_the_same_home_is_refused(plant: LightPlant) -> None:
    second = EngineProcess(plant.detection.name, plant.detection.environment(), plant.home / "second.log")
    second.start()
    plant.until(lambda: second.exit_code is not None, 20, "it ends")
    assert second.exit_code == 78
    assert "another engine runs in this home" in (plant.home / "second.log").read_text()
    second.clear_away()


def test_what_is_wrong_is_told_at_once() -> None:
    """Nothing but the command line and settings, so no servers."""
    command = EngineProcess("live-state", {}, Path("unused")).command()
    refused = subprocess.run(
        command, env={"PLANTWIRE_LIGHT_SAVE_MS": "1"}, capture_output=True, text=True, timeout=30
    )
    assert refused.returncode == 78
    assert "light_save_ms" in refused.stderr
