"""Run amqtt's broker in this process: `python -m plantwire.stack.servers.amqtt_broker CONFIG.yaml`.

In: amqtt's own configuration file. Out: a broker until SIGTERM. Guarantees: logs warnings only (amqtt's own
command logs every packet of every client), and ends by itself on SIGTERM.
Not here: the configuration (mqtt.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from amqtt.broker import Broker


async def serve(configuration: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    broker = Broker(configuration)
    await broker.start()
    await ended.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(yaml.safe_load(Path(sys.argv[1]).read_text())))
