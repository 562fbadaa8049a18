"""The rules' copy on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from plantwire.gateway.edge_alarms import rule_copy
from plantwire.gateway.edge_alarms.rule_copy import read_copy, write_copy
from plantwire.schemas.records import AlarmRule, Limit

RULES = (
    AlarmRule("hot", 3, "press-*", "temperature", (Limit(0, above=100.0, deadband=2.0),)),
    AlarmRule("cold", 1, "*", "temperature", (Limit(2, below=-5.5),), 100, 200, "zu kalt: {value}", True),
)


def test_what_is_written_is_read_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "gateway" / "rules.json"
    assert read_copy(file) is None
    write_copy(file, RULES)
    assert read_copy(file) == RULES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    write_copy(file, RULES[:1])
    assert read_copy(file) == RULES[:1]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"rules":[{}]}', b"\xff\xfe\x00", b'{"rules":3}'])
def test_a_damaged_copy_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "rules.json"
    file.write_bytes(damage)
    assert read_copy(file) is None


def test_a_copy_cut_anywhere_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    write_copy(file, RULES)
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        assert read_copy(file) is None


def test_a_write_that_fails_leaves_the_former_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rules.json"
    write_copy(file, RULES)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rule_copy.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_copy(file, ())
    assert read_copy(file) == RULES
