"""The InfluxDB sink as a part of the stack: its start does not wait for InfluxDB, its health does."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from plantwire.stack.parts import Export
from plantwire.stack.ports import free_ports
from tests.conftest import running
from tests.integration.gateway.gateway_rig import create_topics

TOLD_WITHIN_S = 20


def test_an_influxdb_that_is_away_holds_no_start_up_and_shows_in_the_health(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    create_topics(kafka_bootstrap)
    status_port, nobody = free_ports(2)
    variables = {
        "PLANTWIRE_KAFKA": kafka_bootstrap,
        "PLANTWIRE_INFLUX_URL": f"http://127.0.0.1:{nobody}",
        "PLANTWIRE_INFLUX_DATABASE": "plant",
        "PLANTWIRE_INFLUX_STATUS_PORT": str(status_port),
        "PLANTWIRE_INFLUX_GROUP": f"influx-{secrets.token_hex(4)}",
    }

    def part() -> Export:
        return Export("influx", "plantwire.storage.influx", status_port, variables, tmp_path / "influx.log")

    sink = part()
    with running(sink):  # it returns once the part counts as ready
        deadline_s = time.monotonic() + TOLD_WITHIN_S
        while (reason := sink.probe()) is None or "influxdb" not in reason:
            assert time.monotonic() < deadline_s, reason
            time.sleep(0.1)  # paces the probe
        # Who did not start it asks the same.
        assert part().probe() is not None
        assert sink.ended() is None
    assert part().probe() is not None
