"""docs/light-engine.md has every setting and metric; the engine is imported without Flink."""

from __future__ import annotations

import re
import subprocess
import sys

from plantwire.light.metrics import COUNTERS, LightMetrics
from plantwire.light.settings import LightSettings
from plantwire.platform.settings import SharedSettings
from plantwire.stack.settings import PROJECT

DOCUMENT = (PROJECT / "docs" / "light-engine.md").read_text()


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    own = LightSettings.model_fields.keys() - SharedSettings.model_fields.keys()
    named = set(re.findall(r"PLANTWIRE_[A-Z_]+", DOCUMENT))
    assert named - {"PLANTWIRE_KAFKA", "PLANTWIRE_REDIS"} == {f"PLANTWIRE_{name.upper()}" for name in own}


def test_every_metric_is_documented() -> None:
    rows = set(re.findall(r"(?m)^\| `([a-z_]+)` \|", DOCUMENT))
    assert rows == set(COUNTERS)
    for family in LightMetrics().registry.collect():
        assert f"`{family.name}`" in DOCUMENT


def test_it_is_imported_without_flink() -> None:
    program = (
        "import sys; sys.modules['pyflink'] = None\n"
        "import plantwire.light.__main__\n"
        "assert not [name for name in sys.modules if name.startswith(('pyflink.', 'plantwire.udfs'))]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
