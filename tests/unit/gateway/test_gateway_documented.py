"""docs/gateway.md names every reason, setting and metric, and none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from plantwire.gateway.buffer.entry import DropReason
from plantwire.gateway.forwarder import Obstacle
from plantwire.gateway.http_transport import BODY_MEMORY_FULL, STATUS_OF_REASON
from plantwire.gateway.metrics import GatewayMetrics
from plantwire.gateway.rejected import NOT_HTTP
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.settings import SharedSettings

DOCUMENT = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")
OWN_PATHS = {("404", "unknown-path"), ("503", "not-ready"), ("500", "internal")}


def test_every_reason_with_its_status() -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE))
    given = {(str(status), reason.value) for reason, status in STATUS_OF_REASON.items()}
    given |= {("503", obstacle.value) for obstacle in Obstacle} | {("503", BODY_MEMORY_FULL)} | OWN_PATHS
    assert documented == given


def test_every_reason_without_a_status() -> None:
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT, re.MULTILINE))
    assert {reason.value for reason in NOT_HTTP} <= documented


def test_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `PLANTWIRE_([A-Z_]+)` \|([^|]*)\|", DOCUMENT, re.MULTILINE))
    own = GatewaySettings.model_fields.keys() - SharedSettings.model_fields.keys()
    assert {name.lower() for name in rows} == own
    for name, documented in rows.items():
        default = GatewaySettings.model_fields[name.lower()].default
        expected = "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
        assert documented.strip() == expected, name


def test_every_metric() -> None:
    documented = set(re.findall(r"^\| `(plantwire_gateway_[a-z_]+)` \|", DOCUMENT, re.MULTILINE))
    given = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in GatewayMetrics().registry.collect()
    }
    assert documented == given


def test_every_reason_to_drop() -> None:
    section = DOCUMENT.partition("### The ledger")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == {r.value for r in DropReason}
