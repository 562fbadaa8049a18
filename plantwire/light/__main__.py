"""The light engine: ``python -m plantwire.light alarm-detection`` and ``… live-state``, a process each.

In: the environment (`settings`). Out: exit code 0 after SIGTERM or SIGINT, 1 where a part failed (a
supervisor starts it anew), 69 where its port is taken, 78 where a setting is wrong or the state file cannot
be used.
Guarantees: killed at any moment it goes on from what was saved last (`engine`).
Not here: the parts themselves.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import Final

import structlog
from pydantic import ValidationError

from plantwire.light import detection, live_picture
from plantwire.light.detection import Detection
from plantwire.light.engine import PARTS, Engine, Work
from plantwire.light.kafka_source import KafkaSource, SourceError
from plantwire.light.live_picture import REDIS, LivePicture, StoppedError
from plantwire.light.metrics import LightMetrics
from plantwire.light.outlet import Outlet, OutletError
from plantwire.light.settings import LightSettings
from plantwire.light.state_file import StateFile, StateFileError
from plantwire.platform.alarm_refill import AlarmRefill
from plantwire.platform.critical_path import CriticalPath
from plantwire.platform.health import Health
from plantwire.platform.logging import configure_logging
from plantwire.platform.status_server import StatusServer

LIVE_SAVES: Final = 5
"""The live picture is saved so many times less often: all of its windows go along each time."""

log = structlog.get_logger()


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plantwire.light", description="The light engine.")
    parser.add_argument("process", choices=[detection.NAME, live_picture.NAME])
    name = parser.parse_args(arguments).process
    try:
        settings = LightSettings()
    except ValidationError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 78
    configure_logging(settings.log_level, name)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    is_live = name == live_picture.NAME
    metrics, health = LightMetrics(), Health((*PARTS, REDIS) if is_live else PARTS)
    port = settings.light_live_port if is_live else settings.light_detection_port
    status = StatusServer(settings.light_host, port, health.obstacles, metrics.text)
    try:
        port = status.start()
    except OSError as error:
        variable = "PLANTWIRE_LIGHT_LIVE_PORT" if is_live else "PLANTWIRE_LIGHT_DETECTION_PORT"
        print(
            f"{name}: cannot listen on {settings.light_host}:{port}: {error.strerror}. "
            f"{variable} sets another port.",
            file=sys.stderr,
        )
        return 69
    log.info("started", host=settings.light_host, port=port)
    try:
        _engine(name, settings, metrics, health, stopping).run()
    except StateFileError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 78
    except (SourceError, OutletError) as error:
        log.error("failed", reason=str(error))
        return 1
    except StoppedError:
        log.warning("stopped-while-redis-was-away")
    finally:
        status.close()
    return 0


def _engine(
    name: str, settings: LightSettings, metrics: LightMetrics, health: Health, stopping: threading.Event
) -> Engine:
    is_live = name == live_picture.NAME
    wanted = live_picture.TOPICS if is_live else detection.TOPICS
    source = KafkaSource(settings.kafka, settings.light_group or f"plantwire-{name}", wanted, stopping)
    save_every_s = settings.light_save_ms / 1000 * (LIVE_SAVES if is_live else 1)
    work: Work
    if is_live:
        refill = AlarmRefill(settings.redis, settings.kafka)
        work = LivePicture(settings.redis, refill, settings.live_interval_ms, metrics, health, stopping)
    else:
        critical_path = CriticalPath(settings.redis, metrics.counter)
        work = Detection(settings.kafka, source, Outlet(settings.kafka), critical_path, metrics, stopping)
    file = StateFile(settings.light_folder / f"{name}.db")
    return Engine(work, source, file, save_every_s, metrics, health, stopping)


if __name__ == "__main__":
    sys.exit(main())
