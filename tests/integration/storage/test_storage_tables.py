"""Whatever order, batches and repetitions samples come in: the tables hold what plain Python computes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from plantwire.schemas.records import Metric
from plantwire.storage.batch import Batch, Record
from plantwire.storage.reading import RecordReader
from plantwire.storage.tables import DatabaseAwayError, TelemetryTables
from tests.integration.storage.storage_rig import (
    connect,
    keeping_for_ever,
    read_raw,
    read_tiers,
    settle_tiers,
    write_all,
)
from tests.telemetry_truth import (
    CHANGE_OF_CLOCKS_MS,
    DAY_MS,
    HOUR_MS,
    frame,
    plant,
    record,
    samples_of,
    tiers,
)


@pytest.mark.parametrize("size", [7, 1000])
def test_the_tiers_equal_a_computation_in_python_and_a_replay_changes_nothing(
    telemetry_database: str, size: int
) -> None:
    settings = keeping_for_ever(telemetry_database)
    frames = plant(seed=size)
    records = [record(one, offset) for offset, one in enumerate(frames)]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, records, size)
        settle_tiers(connection, settings)
        first_raw, first = read_raw(connection), read_tiers(connection)
        assert first == tiers(samples_of(frames))
        assert len(first["telemetry_1s"]) > len(first["telemetry_1m"]) > len(first["telemetry_1d"]) > 12

        write_all(tables, records, size + 3)
        settle_tiers(connection, settings)
        assert read_raw(connection) == first_raw
        assert read_tiers(connection) == first
    tables.close()


def test_in_a_large_batch_too_the_first_of_two_samples_stays(telemetry_database: str) -> None:
    """Pages of the staging table do not lie in the order in which they were filled."""
    settings = keeping_for_ever(telemetry_database)
    first = [
        frame("press-1", CHANGE_OF_CLOCKS_MS + n, Metric("a" * (n * n % 97 + 1), 1.0)) for n in range(20_000)
    ]
    again = [frame("press-1", one.event_time_ms, Metric(one.metrics[0].name, 2.0)) for one in first]
    mixed = [one for n in range(0, 20_000, 10) for of in (first, again) for one in of[n : n + 10]]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in mixed], len(mixed))
        assert {row[3] for row in read_raw(connection)} == {1.0}
    tables.close()


def test_a_late_sample_is_in_every_tier_afterwards(telemetry_database: str) -> None:
    settings = keeping_for_ever(telemetry_database)
    at_ms = CHANGE_OF_CLOCKS_MS + 12 * HOUR_MS
    live = [frame("press-1", at_ms + n * 100, Metric("a", float(n))) for n in range(50)]
    late = [frame("press-1", at_ms + n * 100 + 50, Metric("a", -1.0)) for n in range(0, 50, 7)]
    late += [frame("press-1", at_ms - 3 * DAY_MS, Metric("a", 7.0))]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in live], 10)
        settle_tiers(connection, settings)
        assert read_tiers(connection) == tiers(samples_of(live))
        write_all(tables, [record(one) for one in late], 10)
        settle_tiers(connection, settings)
        assert read_tiers(connection) == tiers(samples_of(live + late))
    tables.close()


def test_numbers_that_would_break_a_sum_stay_out_of_the_tiers_and_in_the_raw_table(
    telemetry_database: str,
) -> None:
    settings = keeping_for_ever(telemetry_database)
    numbers = [1.7e308, 1.7e308, -1.7e308, 5e-324, 5e-324, 2.0, 0.0, -3.0]
    frames = [
        frame("press-1", CHANGE_OF_CLOCKS_MS + n * 700, Metric("a", number))
        for n, number in enumerate(numbers)
    ]
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, [record(one) for one in frames], 3)
        settle_tiers(connection, settings)
        assert [row[3] for row in read_raw(connection)] == numbers
        assert read_tiers(connection) == tiers(samples_of(frames[5:]))
    tables.close()


def test_samples_older_than_the_horizon_lie_apart(telemetry_database: str) -> None:
    settings = keeping_for_ever(telemetry_database)
    old = frame("press-1", CHANGE_OF_CLOCKS_MS, Metric("a", 1.0), Metric("b", text="x"))
    new = frame("press-1", CHANGE_OF_CLOCKS_MS + HOUR_MS, Metric("a", 2.0))
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        for _ in range(2):
            write_all(tables, [record(old), record(new)], 10, horizon_ms=CHANGE_OF_CLOCKS_MS + 1)
        settle_tiers(connection, settings)
        assert read_tiers(connection) == tiers(samples_of([new]))
        apart = connection.execute("SELECT metric, number, text FROM telemetry_expired ORDER BY metric")
        assert apart.fetchall() == [("a", 1.0, None), ("b", None, "x")]
    tables.close()


def test_what_came_in_time_is_no_expired_sample_when_it_is_read_again(telemetry_database: str) -> None:
    settings = keeping_for_ever(telemetry_database)
    at_ms = CHANGE_OF_CLOCKS_MS
    frames = [
        frame(f"press-{n % 3}", at_ms + n * HOUR_MS, Metric("a", float(n)), Metric("b", text="x"))
        for n in range(20)
    ]
    records = [record(one) for one in frames]
    too_late = record(frame("press-0", at_ms + 7, Metric("a", 9.0), Metric("b", 1.0)))
    tables = TelemetryTables(settings)
    with connect(settings) as connection:
        write_all(tables, records, 10)
        settle_tiers(connection, settings)
        raw, found = read_raw(connection), read_tiers(connection)
        for _ in range(2):
            write_all(tables, [*records, too_late], 10, horizon_ms=at_ms + DAY_MS)
            settle_tiers(connection, settings)
            apart = connection.execute("SELECT metric, number FROM telemetry_expired ORDER BY metric")
            assert apart.fetchall() == [("a", 9.0), ("b", 1.0)]
            assert (read_raw(connection), read_tiers(connection)) == (raw, found)
    tables.close()


def test_two_writers_with_samples_of_the_same_second(telemetry_database: str) -> None:
    """As when Kafka moves a partition while the old process still writes."""
    settings = keeping_for_ever(telemetry_database)
    at_ms = CHANGE_OF_CLOCKS_MS
    frames = [frame("press-1", at_ms + n, Metric("a", 0.1 * n)) for n in range(200)]
    records = [record(one, offset) for offset, one in enumerate(frames)]
    writers = [TelemetryTables(settings), TelemetryTables(settings)]
    threads = [
        threading.Thread(target=write_all, args=(tables, records[start::2], 5))
        for start, tables in enumerate(writers)
    ]
    for tables in writers:
        tables.ready()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(settings) as connection:
        settle_tiers(connection, settings)
        assert read_tiers(connection) == tiers(samples_of(frames))
    for tables in writers:
        tables.close()


def test_what_is_there_already_is_found_and_afterwards_rows_are_copied_unasked_again(
    telemetry_database: str,
) -> None:
    settings = keeping_for_ever(telemetry_database)
    at_ms = CHANGE_OF_CLOCKS_MS
    frames = [
        frame(f"press-{n % 3}", at_ms + n * 10, Metric("a", 0.1 * n), Metric("b", text="x"))
        for n in range(400)
    ]
    records = [record(one, offset) for offset, one in enumerate(frames)]
    other = record(frame("press-1", at_ms + 10, Metric("a", 99.0)))
    tables = TelemetryTables(settings)

    def unasked(*written: Record) -> bool:
        write_all(tables, written, 1000)
        return tables._direct

    with connect(settings) as connection:
        assert unasked(*records[:100])
        assert not unasked(*records[90:200])
        assert unasked(*records[200:300])
        assert not unasked(records[300], other, records[301])
        assert not unasked(*records[300:302])
        # Twice in one batch: the first stays.
        assert not unasked(
            *records[302:350], record(frame("press-2", at_ms + 3020, Metric("a", 98.0))), *records
        )
        settle_tiers(connection, settings)
        raw, found = read_raw(connection), read_tiers(connection)
        assert len(raw) == 2 * len(frames)
        assert found == tiers(samples_of(frames))
    tables.close()


def test_a_connection_that_was_cut_is_made_again(telemetry_database: str) -> None:
    settings = keeping_for_ever(telemetry_database)
    tables = TelemetryTables(settings)
    batch = Batch()
    RecordReader().read([record(frame("press-1", CHANGE_OF_CLOCKS_MS, Metric("a", 1.0)))], 0, batch)
    tables.ready()
    with connect(settings) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'plantwire-storage' AND datname = current_database()"
        )
        with pytest.raises(DatabaseAwayError):
            tables.write(batch.islands()[0], [0])
        assert tables.write(batch.islands()[0], [0]).samples == 1
        assert len(read_raw(connection)) == 1
    tables.close()


def test_rows_are_as_they_were_sent(telemetry_database: str) -> None:
    settings = keeping_for_ever(telemetry_database)
    sent: list[Record] = [
        record(
            frame(
                "press-1",
                CHANGE_OF_CLOCKS_MS + 1,
                Metric("a", -0.1),
                Metric("b", text="größer"),
                Metric("c", quality=500),
                Metric("d/e f", 1.0, event_time_ms=999),
            )
        )
    ]
    tables = TelemetryTables(settings)
    write_all(tables, sent, 1)
    tables.close()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    at = epoch + timedelta(milliseconds=CHANGE_OF_CLOCKS_MS + 1)
    with connect(settings) as connection:
        assert read_raw(connection) == [
            ("press-1", "a", at, -0.1, None, 192),
            ("press-1", "b", at, None, "größer", 192),
            ("press-1", "c", at, None, None, 500),
            ("press-1", "d/e f", epoch + timedelta(milliseconds=999), 1.0, None, 192),
        ]
