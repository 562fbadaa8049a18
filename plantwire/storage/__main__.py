"""The storage process: ``python -m plantwire.storage``.

In: the environment (`settings`). Out: exit code 0 after SIGTERM or SIGINT, 1 where a part failed (a
supervisor starts it anew), 69 where its port is taken, 78 where a setting is wrong.
Guarantees: a stop ends after the transaction in hand; killed at any moment it loses nothing and stores
nothing twice: what was not settled is read again and found stored.
Not here: the parts themselves.
"""

from __future__ import annotations

import re
import signal
import socket
import sys
import threading

import structlog
from pydantic import ValidationError

from plantwire.platform.health import Health
from plantwire.platform.logging import configure_logging
from plantwire.platform.status_server import StatusServer
from plantwire.storage.dead_letters import DeadLetters
from plantwire.storage.ingest import DATABASE, Ingest
from plantwire.storage.metrics import StorageMetrics
from plantwire.storage.settings import StorageSettings
from plantwire.storage.source import FrameSource, SourceError
from plantwire.storage.supply import KAFKA
from plantwire.storage.tables import TelemetryTables
from plantwire.storage.upkeep import UPKEEP, Upkeep

log = structlog.get_logger()


def main() -> int:
    """Run until a signal; the exit code."""
    try:
        settings = StorageSettings()
    except ValidationError as error:
        print(f"storage: {error}", file=sys.stderr)
        return 78
    configure_logging(settings.log_level, "storage")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    metrics, health = StorageMetrics(), Health((DATABASE, KAFKA, UPKEEP))
    status = StatusServer(settings.storage_host, settings.storage_port, health.obstacles, metrics.text)
    try:
        port = status.start()
    except OSError as error:
        print(
            f"storage: cannot listen on {settings.storage_host}:{settings.storage_port}: {error.strerror}. "
            "PLANTWIRE_STORAGE_PORT sets another port.",
            file=sys.stderr,
        )
        return 69
    instance = re.sub(r"[^A-Za-z0-9._-]", "-", f"{socket.gethostname()}-{port}")
    source = FrameSource(settings, instance, on_lost=metrics.lost.inc)
    tables, letters = TelemetryTables(settings), DeadLetters(settings)
    upkeep = threading.Thread(target=Upkeep(settings, metrics, health, stopping).run, daemon=True)
    log.info("storage_started", host=settings.storage_host, port=port)
    try:
        source.start()
        upkeep.start()
        Ingest(settings, source, tables, letters, metrics, health, stopping).run()
        return 0
    except SourceError as error:
        log.error("source_failed", reason=str(error))
        return 1
    finally:
        stopping.set()
        source.close()
        letters.close()
        tables.close()
        status.close()


if __name__ == "__main__":
    sys.exit(main())
