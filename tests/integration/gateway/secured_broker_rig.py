"""A real broker with TLS, users and access lists, and the certificates for it, for the integration tests."""

from __future__ import annotations

import secrets
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plantwire.stack import java
from plantwire.stack.servers.process import ServerProcess

SOURCES = Path(__file__).with_name("secured_broker")
HOST = "localhost"
"""The only name in the broker's certificate: 127.0.0.1 is the same place, but not its name."""

CONFIGURATION = """\
<?xml version="1.0"?>
<hivemq>
  <listeners>
    {listeners}
  </listeners>
  <persistence><mode>in-memory</mode></persistence>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""
LISTENER = """\
<tls-tcp-listener>
  <port>{port}</port><bind-address>127.0.0.1</bind-address>
  <tls>
    <keystore>
      <path>{folder}/server.p12</path>
      <password>{password}</password><private-key-password>{password}</private-key-password>
    </keystore>
    <truststore><path>{folder}/trust.p12</path><password>{password}</password></truststore>
    <client-authentication-mode>{clients}</client-authentication-mode>
  </tls>
</tls-tcp-listener>
"""


class Certificates:
    """An authority, the broker's certificate and one for a client, as stores and as PEM files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(16)
        self.authority = folder / "ca.pem"
        self.foreign_authority = folder / "foreign-ca.pem"
        self.client_certificate = folder / "client.pem"
        self.client_key = folder / "client-key.pem"

    def make(self) -> None:
        self.folder.mkdir(parents=True)
        command = _java_source("TestCertificates", str(self.folder), self.password, HOST)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        self.client_key.chmod(0o600)


class SecuredBroker(ServerProcess):
    """HiveMQ that takes users over TLS; on `mutual_port` only with a client's certificate as well."""

    stop_timeout_s = 5.0

    def __init__(
        self, folder: Path, port: int, mutual_port: int, certificates: Certificates, users: Sequence[str]
    ) -> None:
        super().__init__("secured-mqtt", port, folder / "broker.log")
        self.url = f"mqtts://{HOST}:{port}"
        self.mutual_url = f"mqtts://{HOST}:{mutual_port}"
        self.passwords = {user: secrets.token_hex(16) for user in users}
        self.certificates = certificates
        self._mutual_port = mutual_port
        self._folder = folder

    def prepare(self) -> None:
        for name in ("conf", "data", "extensions"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        stores = {"folder": self.certificates.folder, "password": self.certificates.password}
        listeners = [
            LISTENER.format(port=port, clients=clients, **stores)
            for port, clients in ((self.port, "NONE"), (self._mutual_port, "REQUIRED"))
        ]
        (self._folder / "conf" / "config.xml").write_text(CONFIGURATION.format(listeners="".join(listeners)))
        users = "".join(f"{user}={password}\n" for user, password in self.passwords.items())
        (self._folder / "users.properties").write_text(users)

    def command(self) -> Sequence[str]:
        return _java_source("SecuredBroker", str(self._folder))

    def probe(self) -> str | None:
        context = ssl.create_default_context(cafile=self.certificates.authority)
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port or 0), 2) as raw,
                context.wrap_socket(raw, server_hostname=HOST),
            ):
                return None
        except OSError as error:
            return str(error)


def _java_source(name: str, *arguments: str) -> list[str]:
    """The command that compiles and runs one of the sources beside this file."""
    options = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{java.jars('mqtt')}/*")
    return [java.java_executable(), *options, str(SOURCES / f"{name}.java"), *arguments]
