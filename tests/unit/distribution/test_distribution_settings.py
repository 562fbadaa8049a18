from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from plantwire.distribution.metrics import DistributionMetrics
from plantwire.distribution.packets import __dict__ as packet_names
from plantwire.distribution.settings import DistributionSettings

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "distribution.md"


def test_the_origins_are_the_own_ones_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["http://127.0.0.1:8123", "http://localhost:8123"]
    assert DistributionSettings().allowed_origins(8123) == own
    monkeypatch.setenv("PLANTWIRE_DISTRIBUTION_ORIGINS", '["https://plant.example"]')
    assert DistributionSettings().allowed_origins(8123) == ["https://plant.example"]


def test_a_value_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTWIRE_DISTRIBUTION_PORT", "70000")
    with pytest.raises(ValidationError, match="port"):
        DistributionSettings()


def test_every_setting_event_and_metric_is_documented() -> None:
    text = DOCUMENTATION.read_text("utf-8")
    settings = [f"PLANTWIRE_DISTRIBUTION_{name.upper()}" for name in DistributionSettings.model_fields]
    events = [value for name, value in packet_names.items() if name.startswith("EVENT_")]
    metrics = [family.name for family in DistributionMetrics().registry.collect()]
    assert settings
    assert events
    assert metrics
    assert [name for name in (*settings, *events, *metrics) if f"`{name}" not in text] == []
