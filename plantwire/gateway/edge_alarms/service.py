"""The edge alarms' parts put together.

In: settings, the rules that are followed, the edge buffer. Out: `detection` for the intake, `socket` for the
HTTP server.
Guarantees: constructed, nothing runs; started, what the last run left is taken up.
Not here: following the rules, which report by exception needs as well (`rule_follower`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from plantwire.gateway.buffer.entry import EdgeBuffer
from plantwire.gateway.edge_alarms.detection import EdgeAlarms
from plantwire.gateway.edge_alarms.local_socket import LocalSocket
from plantwire.gateway.edge_alarms.metrics import EdgeAlarmMetrics
from plantwire.gateway.edge_alarms.rule_follower import RuleFollower
from plantwire.gateway.edge_alarms.settings import EdgeAlarmSettings
from plantwire.platform.tokens import TokenAuthority
from plantwire.schemas.records import AlarmEvent


class EdgeAlarmService:
    """`start` it once the buffer is open; `close` it before the buffer."""

    def __init__(
        self,
        settings: EdgeAlarmSettings,
        port: int,
        rules: RuleFollower,
        buffer: EdgeBuffer,
        authority: TokenAuthority,
        metrics: EdgeAlarmMetrics,
    ) -> None:
        self.detection = EdgeAlarms(settings.gateway_edge_devices_max, rules, buffer, metrics, self._tell)
        self.socket = LocalSocket(
            settings,
            port,
            authority,
            metrics,
            active=lambda: self.detection.active,
            rules=lambda: None if rules.book is None else len(rules.book),
        )

    def start(self, put_alarms: Callable[[Sequence[AlarmEvent]], None]) -> None:
        """Inside the running loop, with the rules started; `put_alarms` is `DurableForwarder.put_alarms`."""
        self.detection.start(asyncio.get_running_loop(), put_alarms)

    async def close(self) -> None:
        """After the last frame: keep the devices' states."""
        await self.detection.close()

    def _tell(self, event: AlarmEvent) -> None:
        self.socket.tell(event)
