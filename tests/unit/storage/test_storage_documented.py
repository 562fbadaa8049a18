"""docs/storage.md names every setting, reason and metric, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from plantwire.platform.settings import SharedSettings
from plantwire.storage.ingest import REASON_REFUSED
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.reading import FRAME_REASONS, REASON_TRANSIENT, SAMPLE_REASONS
from plantwire.storage.settings import StorageSettings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "storage.md").read_text("utf-8")


def test_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `PLANTWIRE_(STORAGE_[A-Z0-9_]+)` \| `([^`]*)` \|", DOCUMENT, re.MULTILINE))
    own = StorageSettings.model_fields.keys() - SharedSettings.model_fields.keys()
    assert {name.lower() for name in rows} == own
    for name, documented in rows.items():
        default = StorageSettings.model_fields[name.lower()].default
        assert documented == (f"{default:g}" if isinstance(default, float) else str(default)), name


def test_every_setting_explains_itself() -> None:
    assert [name for name, field in StorageSettings.model_fields.items() if not field.description] == []


def test_every_reason() -> None:
    frames, _, samples = DOCUMENT.partition("Records that are refused")[2].partition(
        "Samples that are not stored"
    )
    row = r"^\| `([a-z-]+)` \|"
    assert set(re.findall(row, frames, re.MULTILINE)) == {*FRAME_REASONS, REASON_REFUSED}
    section = samples.partition("\n## ")[0]
    assert set(re.findall(row, section, re.MULTILINE)) == {*SAMPLE_REASONS, REASON_TRANSIENT}


def test_every_metric() -> None:
    documented = set(re.findall(r"^\| `(plantwire_storage_[a-z_]+)` \|", DOCUMENT, re.MULTILINE))
    given = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in StorageMetrics().registry.collect()
    }
    assert documented == given
