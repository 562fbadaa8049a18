"""The MQTT probe at a broker that asks who comes, played by a socket that speaks just enough of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from plantwire.stack.health import probe_mqtt

ACCEPTED, NOT_AUTHORISED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


@pytest.fixture
def guarded() -> Iterator[str]:
    """`host:port` of a broker that takes user `plant` with password `s@cret` only."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connect = connection.recv(4096)
                if connect:  # a look at the port sends nothing
                    right = connect.endswith(b"\x00\x05plant\x00\x06s@cret")
                    connection.sendall(ACCEPTED if right else NOT_AUTHORISED)
                    connection.recv(4096)

    thread = threading.Thread(target=serve)
    thread.start()
    yield "{}:{}".format(*listener.getsockname())
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_credentials_come_from_settings_or_from_the_url(guarded: str) -> None:
    assert probe_mqtt(f"mqtt://{guarded}", "plant", "s@cret") is None
    assert probe_mqtt(f"mqtt://plant:s%40cret@{guarded}") is None
    assert probe_mqtt(f"mqtt://other:wrong@{guarded}", "plant", "s@cret") is None
    for refused in (
        probe_mqtt(f"mqtt://{guarded}"),
        probe_mqtt(f"mqtt://plant:s%40cret@{guarded}", None, "wrong"),
    ):
        assert refused == "MQTT broker refuses us: Not authorized"


def test_authorities_that_cannot_be_read_are_a_reason(guarded: str, tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    assert probe_mqtt(f"mqtts://{guarded}", tls_ca=missing) == (
        f"the authorities in {missing} cannot be used: No such file or directory"
    )
