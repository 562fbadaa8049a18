"""`/healthz`, `/readyz` and `/metrics` of a process that serves nothing else.

In: functions that answer. Out: HTTP on a thread of its own.
Guarantees: nothing but these three GETs; a request never waits for a server.
Not here: what is ready (`platform.health`), what is counted (the process).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

REQUEST_TIMEOUT_S: Final = 5.0
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class StatusServer:
    """`start` it, `close` it."""

    def __init__(
        self, host: str, port: int, obstacles: Callable[[], list[str]], metrics: Callable[[], bytes]
    ) -> None:
        self._address = (host, port)
        self._obstacles = obstacles
        self._metrics = metrics
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen; the port. Raises OSError where the address is taken."""
        obstacles, metrics = self._obstacles, self._metrics

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/healthz":
                    self._answer(200, b'{"status": "alive"}\n', "application/json")
                elif path == "/readyz":
                    found = obstacles()
                    body = json.dumps({"status": "not ready" if found else "ready", "reasons": found})
                    self._answer(503 if found else 200, body.encode() + b"\n", "application/json")
                elif path == "/metrics":
                    self._answer(200, metrics(), METRICS_TYPE)
                else:
                    self._answer(404, b'{"title": "Not found", "status": 404}\n', "application/problem+json")

            def _answer(self, status: int, body: bytes, media: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def version_string(self) -> str:
                return "plantwire"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Probes every few seconds are no news."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away in the middle is no news either."""

        self._server = Server(self._address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
