"""One small site for all tests of the light engine; each test uses devices and rules of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.light.light_rig import READY_S, LightPlant, light_plant
from tests.topology.conftest import RULES


@pytest.fixture(scope="session")
def running_plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LightPlant]:
    with light_plant(tmp_path_factory.mktemp("light")) as plant:
        plant.publish_rules(*RULES)
        plant.start_engine()
        yield plant


@pytest.fixture
def plant(running_plant: LightPlant) -> LightPlant:
    """Healthy, whatever the test before did."""
    for process in (running_plant.detection, running_plant.live):
        process.start()
        process.wait_ready(READY_S)
    return running_plant
