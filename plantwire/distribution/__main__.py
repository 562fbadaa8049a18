"""The distribution process: `python -m plantwire.distribution`.

In: the environment (`settings`, `platform.settings`). Out: a server on the configured port.
Guarantees: SIGTERM and SIGINT close every client with code 1012 (it connects again elsewhere) and end
within a few seconds; the exit status is 0 then.
"""

from __future__ import annotations

import signal
import socket
import sys
from typing import Final

import structlog
import uvicorn
from pydantic import ValidationError

from plantwire.distribution.server import DistributionServer
from plantwire.distribution.settings import DistributionSettings, KeptSettings
from plantwire.platform.logging import configure_logging
from plantwire.platform.settings import SharedSettings

BACKLOG: Final = 2048
SHUTDOWN_S: Final = 5


def listen(settings: DistributionSettings) -> socket.socket:
    """The listening socket; raises OSError when the address is taken.

    Accepted connections inherit its send buffer: without that bound the kernel would hold megabytes
    for a client that does not read.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_buffer_bytes)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def main() -> int:
    """Run until a signal; the exit status."""
    try:
        settings, shared, kept = DistributionSettings(), SharedSettings(), KeptSettings()
    except ValidationError as error:
        print(f"distribution: {error}", file=sys.stderr)
        return 78
    configure_logging(shared.log_level, "distribution")
    try:
        listener = listen(settings)
    except OSError as error:
        print(
            f"distribution: cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "PLANTWIRE_DISTRIBUTION_PORT sets another port.",
            file=sys.stderr,
        )
        return 69
    port = listener.getsockname()[1]
    try:
        app = DistributionServer(settings, shared, kept, port)
    except ValueError as error:
        listener.close()
        print(f"distribution: {error}", file=sys.stderr)
        return 78
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=settings.message_max_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # Engine.IO has its own ping
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    structlog.get_logger(__name__).info("distribution.listening", host=settings.host, port=port)
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn takes the signals while it serves and raises them again at its end; by these it ends with 0.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run(sockets=[listener])
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
