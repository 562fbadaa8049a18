"""One run of `bench.edge_alarm`: a fresh gateway that is cut off from Kafka, devices, local clients.

In: an MQTT broker, a transport, a plan. Out: an `EdgeRun`.
Guarantees: nothing listens where the gateway looks for Kafka, so every frame goes to the edge buffer; rules
come from the copy on disk; the clients are python-socketio's own, unchanged, in a process of their own.
Not here: which runs there are (`bench.edge_alarm`).
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

import httpx
import msgspec

from bench.bench_process import bench_process
from bench.edge_alarm_plan import RULE, EdgeDeliveries, EdgePlan, compare
from bench.edge_alarm_sender import EdgeOrder
from bench.http_process import GATEWAY_MODULE, HttpProcess
from bench.receipts import read_receipts
from bench.socket_clients import ClientOrder
from plantwire.gateway.edge_alarms.local_socket import NAMESPACE
from plantwire.gateway.edge_alarms.rule_copy import write_copy
from plantwire.gateway.parts import RULES_FILE
from plantwire.platform.tokens import Role, TokenAuthority
from plantwire.stack.ports import free_ports

READY_TIMEOUT_S: Final = 30.0
SECRET: Final = secrets.token_hex(32)


class EdgeRun(msgspec.Struct, frozen=True):
    """What one run showed."""

    transport: str
    delivered: EdgeDeliveries
    refused: int
    """Frames that the gateway or the broker did not take."""
    late_ms_max: float
    """How late the sender itself was at most."""
    buffered: int
    """Entries in the edge buffer at the end: with Kafka away, every frame and its alarms."""


class CutOffGateway(HttpProcess):
    """The gateway with edge alarms, and nobody where Kafka should be."""

    def __init__(self, mqtt: str, folder: Path) -> None:
        super().__init__("gateway", GATEWAY_MODULE, folder / "gateway.log")
        (nobody,) = free_ports(1)
        self._home = folder / f"home-{secrets.token_hex(4)}"
        self.settings = {
            "PLANTWIRE_KAFKA": f"127.0.0.1:{nobody}",
            "PLANTWIRE_MQTT": mqtt,
            "PLANTWIRE_GATEWAY_PORT": str(self.port),
            "PLANTWIRE_TOKEN_SECRET": SECRET,
            # The same for all runs: the broker keeps one session, not one per run.
            "PLANTWIRE_MQTT_CLIENT_ID": "bench-edge-alarm",
            "PLANTWIRE_GATEWAY_EDGE_ALARMS": "true",
            "PLANTWIRE_HOME": str(self._home),
        }

    def prepare(self) -> None:
        write_copy(self._home / "gateway" / RULES_FILE, [RULE])

    def buffered(self) -> int:
        """Entries in the edge buffer now."""
        return int(httpx.get(self.url + "/ledger", timeout=5).json()["buffer"]["entries"])


async def measure(mqtt: str, transport: str, plan: EdgePlan, clients: int, folder: Path) -> EdgeRun:
    """Start the gateway, connect the clients, send, compare."""
    authority = TokenAuthority(SECRET, "plantwire", "plantwire")

    def token(role: Role) -> str:
        return authority.issue("bench", role, ["*"], int(time.time()), 3600)

    gateway = CutOffGateway(mqtt, folder)
    receipts_file = folder / f"receipts-{plan.name}.json"
    gateway.prepare()
    gateway.start()
    try:
        gateway.wait_ready(READY_TIMEOUT_S)
        order = ClientOrder(gateway.url, token(Role.VIEWER), clients, 0, str(receipts_file), NAMESPACE)
        async with bench_process("bench.official_clients", order) as listening:
            await listening.hear("ready", READY_TIMEOUT_S)
            send = EdgeOrder(transport, plan, gateway.url, mqtt, token(Role.DEVICE))
            async with bench_process("bench.edge_alarm_sender", send) as sender:
                start_ms = (await sender.hear("started", READY_TIMEOUT_S))["start_ms"]
                finished = await sender.hear("finished", plan.warm_up_s + plan.duration_s + 60)
                await sender.end()
            await listening.end()
        buffered = gateway.buffered()
    finally:
        gateway.stop()
    delivered = compare(plan.crossings(start_ms), clients, read_receipts(receipts_file))
    return EdgeRun(transport, delivered, finished["refused"], finished["late_ms_max"], buffered)
