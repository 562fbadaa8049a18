"""Structured logs: one JSON object a line on stderr, or coloured text on a terminal."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging(level: str, process: str) -> None:
    """Set up structlog for a process; `process` appears in every line. Call once, in `main`."""
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise SystemExit(f"PLANTWIRE_LOG_LEVEL is {level!r}; it takes debug, info, warning or error.")
    # Plain tracebacks: rich ones print local variables, and a secret may be among them.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr)
