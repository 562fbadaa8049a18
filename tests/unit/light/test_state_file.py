"""The state file: all or nothing, one process, one Kafka; whatever is wrong is told."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from plantwire.light.state_file import Progress, StateFile, StateFileError

RAW = "device.telemetry.raw"


def opened(path: Path, cluster_id: str = "one") -> StateFile:
    file = StateFile(path)
    file.open(cluster_id)
    return file


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.db"
    file = opened(path)
    assert (file.positions(), file.devices(), file.windows()) == ({}, {}, None)
    file.save(Progress({(RAW, 0): 5, (RAW, 1): 7}, {"a": b"1", "b": b"2"}, b"open"))
    file.save(Progress({(RAW, 1): 9}, {"a": None, "c": b"3", "unknown": None}))
    file.close()
    again = opened(path)
    assert again.positions() == {(RAW, 0): 5, (RAW, 1): 9}
    assert again.devices() == {"b": b"2", "c": b"3"}
    assert again.windows() == b"open"
    again.close()


def test_a_save_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = opened(tmp_path / "state.db")
    file.save(Progress({(RAW, 0): 5}, {"a": b"1"}))
    with pytest.raises(apsw.ConstraintError):
        file.save(Progress({(RAW, 0): 6}, {"a": b"2", "b": "no bytes"}))  # type: ignore[dict-item]
    assert (file.positions(), file.devices()) == ({(RAW, 0): 5}, {"a": b"1"})
    file.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first = opened(tmp_path / "state.db")
    with pytest.raises(StateFileError, match="another engine runs"):
        opened(tmp_path / "state.db")
    first.close()
    opened(tmp_path / "state.db").close()


def test_the_state_of_another_kafka_is_forgotten(tmp_path: Path) -> None:
    file = opened(tmp_path / "state.db")
    file.save(Progress({(RAW, 0): 5}, {"a": b"1"}, b"open"))
    file.close()
    other = opened(tmp_path / "state.db", "two")
    assert (other.positions(), other.devices(), other.windows()) == ({}, {}, None)
    other.close()


def test_a_file_that_is_no_state_or_of_later_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is no database, but it is long enough to be looked at" * 100)
    before = path.read_bytes()
    with pytest.raises(StateFileError, match="Moved away, the engine begins without it"):
        opened(path)
    assert path.read_bytes() == before
    later = tmp_path / "later.db"
    opened(later).close()
    connection = apsw.Connection(str(later))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateFileError, match="later version"):
        opened(later)
