"""A process that a bench starts and that answers HTTP: a gateway, or what it is compared with.

In: a module, its environment. Out: a server process on a free port, ready once `/readyz` answers 200.
Guarantees: no PLANTWIRE_ setting of the caller's environment reaches it.
Not here: which settings a bench gives it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx

from plantwire.stack.ports import free_ports
from plantwire.stack.servers.process import ServerProcess

GATEWAY_MODULE: Final = "plantwire.gateway"


class HttpProcess(ServerProcess):
    """`python -m MODULE`; `settings` is filled by its subclass, or before `start`."""

    def __init__(self, name: str, module: str, log_file: Path) -> None:
        (port,) = free_ports(1)
        super().__init__(name, port, log_file)
        self._module = module
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.settings: dict[str, str] = {}

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", self._module]

    def environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PLANTWIRE_")}
        return kept | self.settings

    def probe(self) -> str | None:
        try:
            answer = httpx.get(self.url + "/readyz", timeout=2)
        except httpx.HTTPError as error:
            return str(error)
        return None if answer.status_code == 200 else answer.text
