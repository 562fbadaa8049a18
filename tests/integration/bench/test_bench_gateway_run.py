"""The gateway's benches run: each once, for seconds, with real servers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.gateway_payloads import PROTOCOLS
from bench.gateway_run import FLOOR, GATEWAY, measure
from tests.integration.gateway.gateway_rig import create_topics


@pytest.mark.parametrize("subject", [GATEWAY, FLOOR])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_message_comes_out(
    subject: str, protocol: str, kafka_bootstrap: str, mqtt_url: str, tmp_path: Path
) -> None:
    create_topics(kafka_bootstrap)
    run = asyncio.run(measure(subject, protocol, kafka_bootstrap, mqtt_url, tmp_path, 1.0, 100.0))
    assert (run.sent, run.refused) == (100, 0)
    assert run.seen == run.sent
    assert run.path_ms is not None
    assert (run.normalisation_ms is not None) == (subject == GATEWAY)
