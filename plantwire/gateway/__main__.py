"""The gateway process: ``python -m plantwire.gateway``.

In: the environment (`settings`). Out: exit code 0 after SIGTERM or SIGINT, 1 where a part failed (a
supervisor starts it anew).
Guarantees: a stop takes no more input, waits for what is in hand, and only then exits; everything that was
answered 202 or acknowledged over MQTT is in Kafka or in the edge buffer.
Not here: the parts and their order (`parts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import sys

import structlog
import uvloop

from plantwire.gateway.buffer.database import LaterFormatError, UnsafeSqliteError
from plantwire.gateway.buffer.folder import FolderInUseError
from plantwire.gateway.parts import Parts
from plantwire.gateway.settings import GatewaySettings
from plantwire.platform.logging import configure_logging

log = structlog.get_logger()

LISTEN_BACKLOG = 2048
# The thread that receives Kafka's acknowledgements waits this long for the GIL at most; Python's own 5 ms
# is longer than the acknowledgement itself takes.
GIL_SWITCH_INTERVAL_S = 0.0005


def main() -> None:
    """Run the gateway until it is told to stop."""
    settings = GatewaySettings()
    configure_logging(settings.log_level, "gateway")
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    listener = _listen(settings)
    with contextlib.closing(listener):
        sys.exit(uvloop.run(_run(settings, listener)))


def _listen(settings: GatewaySettings) -> socket.socket:
    try:
        return socket.create_server(
            (settings.gateway_host, settings.gateway_port), backlog=LISTEN_BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise SystemExit(
            f"The gateway cannot listen on {settings.gateway_host}:{settings.gateway_port} "
            f"(PLANTWIRE_GATEWAY_HOST, PLANTWIRE_GATEWAY_PORT): {error.strerror}."
        ) from None


async def _run(settings: GatewaySettings, listener: socket.socket) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parts = Parts(settings, listener)
    try:
        await parts.start()
    except (FolderInUseError, LaterFormatError, UnsafeSqliteError, OSError) as error:
        raise SystemExit(
            f"The edge buffer in {settings.buffer_folder()} cannot be used: {error} "
            "(PLANTWIRE_GATEWAY_BUFFER_FOLDER; each gateway needs one of its own)."
        ) from None
    # What was loaded so far lives as long as the process: the collector need not walk it again.
    gc.freeze()
    log.info("gateway_started", host=settings.gateway_host, port=settings.gateway_port)
    stopping = asyncio.create_task(stop.wait())
    ended = asyncio.create_task(parts.ended())
    await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
    in_order = stopping.done()
    for task in (stopping, ended):
        task.cancel()
    return 0 if await parts.stop(in_order) else 1


if __name__ == "__main__":
    main()
