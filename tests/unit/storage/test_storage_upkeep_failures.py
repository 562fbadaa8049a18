"""What fails in the upkeep holds up only what relies on it, and is to be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import psycopg
import pytest

from plantwire.platform.health import Health
from plantwire.storage import upkeep
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.migration import Connection, Variant
from plantwire.storage.retention import EPOCH, ROWS_PER_STEP, Deleted, Keep
from plantwire.storage.rollups import MARKS_PER_STEP, Rollup
from plantwire.storage.settings import StorageSettings
from plantwire.storage.upkeep import RETENTION_EVERY_S, UPKEEP, Upkeep

TIERS = {"telemetry_1s", "telemetry_1m", "telemetry_1h"}


class World:
    """A database in which steps do what a test says."""

    closed = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.health = Health((UPKEEP,))
        self.metrics = StorageMetrics()
        self.rolled_up: list[tuple[str, int]] = []
        self.deleted: list[str] = []
        self.roll: Callable[[Rollup, int], tuple[int, int]] = lambda rollup, marks: (0, 0)
        self.rows: dict[str, list[int]] = {}
        self.upkeep = Upkeep(
            StorageSettings(), self.metrics, self.health, threading.Event(), clock=lambda: self.now_s
        )
        monkeypatch.setattr(upkeep, "roll_up", self._roll_up)
        monkeypatch.setattr(upkeep, "delete_old", self._delete_old)
        monkeypatch.setattr(upkeep, "note_gone", lambda *_: EPOCH + timedelta(days=1))

    def step(self) -> None:
        self.upkeep.step(cast(Connection, self), Variant.POSTGRESQL)

    def failures(self) -> float | None:
        return self.metrics.registry.get_sample_value("plantwire_storage_failures_total", {"what": UPKEEP})

    def _roll_up(self, _: Any, rollup: Rollup, marks: int) -> tuple[int, int]:
        self.rolled_up.append((rollup.tier, marks))
        return self.roll(rollup, marks)

    def _delete_old(self, _: Any, keep: Keep, since: datetime, before: datetime, rows: int) -> Deleted:
        self.deleted.append(keep.table)
        left = self.rows.get(keep.table, [])
        return Deleted(left.pop(), bool(left), before) if left else Deleted(0, False, before)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_rollup_that_is_never_through_holds_up_neither_the_others_nor_the_raw_samples(world: World) -> None:
    def roll(rollup: Rollup, marks: int) -> tuple[int, int]:
        if rollup.tier == "telemetry_1m":
            raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        return 0, 0

    world.roll = roll
    world.step()
    assert {tier for tier, _ in world.rolled_up} == {"telemetry_1m", "telemetry_1h", "telemetry_1d"}
    # The tiers lose nothing that they may still be needed for.
    assert set(world.deleted) == {"telemetry_expired", "device_telemetry"}
    assert world.health.obstacles() == ["upkeep: telemetry_1m: canceling statement due to statement timeout"]
    world.roll = lambda rollup, marks: (0, 0)
    world.now_s += RETENTION_EVERY_S
    world.step()
    assert set(world.deleted) == {"telemetry_expired", "device_telemetry", *TIERS}
    assert world.health.obstacles() == []


def test_a_step_that_takes_too_long_is_tried_with_less_until_it_is_through(world: World) -> None:
    marks_left = 300

    def roll(rollup: Rollup, marks: int) -> tuple[int, int]:
        nonlocal marks_left
        if rollup.tier != "telemetry_1m":
            return 0, 0
        if marks > 130:
            world.now_s += 60
            raise psycopg.errors.QueryCanceled("canceling statement due to statement timeout")
        taken = min(marks, marks_left)
        marks_left -= taken
        world.now_s += 20
        return taken, taken

    world.roll = roll
    world.step()
    sizes = [marks for tier, marks in world.rolled_up if tier == "telemetry_1m"]
    assert sizes[:6] == [MARKS_PER_STEP, 500, 125, 125, 125, 125]
    assert marks_left == 0
    assert world.failures() == 2
    assert world.health.obstacles() == []


def test_rollups_go_on_while_much_is_deleted(world: World) -> None:
    world.rows["device_telemetry"] = [ROWS_PER_STEP] * 5

    def roll(rollup: Rollup, marks: int) -> tuple[int, int]:
        world.now_s += 1
        return 0, 0

    world.roll = roll
    world.step()
    before = len(world.rolled_up)
    world.rows["device_telemetry"] = [ROWS_PER_STEP] * 5
    world.now_s += RETENTION_EVERY_S
    world.deleted.clear()
    world.step()
    assert world.deleted.count("device_telemetry") == 5
    assert len(world.rolled_up) > before + 6  # once when due, once before the delete, and meanwhile


def test_a_lost_connection_ends_the_step(world: World) -> None:
    def roll(rollup: Rollup, marks: int) -> tuple[int, int]:
        world.closed = True
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    world.roll = roll
    with pytest.raises(psycopg.OperationalError):
        world.step()
    assert world.deleted == []
