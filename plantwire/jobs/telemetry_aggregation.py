"""The telemetry-aggregation job: samples → live windows → Redis.

In: the view `samples` (`jobs.frame_tables`). Out: windows of 1 s, and of 5 min every minute, per device and
metric, as rows of (window, end in s, packed values), to a Python function that shows them.
Guarantees: a window is told once, when the watermark has passed its end; its state is gone then. Live only:
what is late or historical is in the database, which owes nothing to this job.
Not here: which samples are live (`jobs.frame_tables`), how windows are shown (`platform.window_show`), stored
windows (storage).

All of it but the last function is SQL in the JVM (docs/decisions/0015-live-windows-in-sql.md). The windows of
5 min are made of those of 1 s: a sixtieth of the work, and both tell of the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyflink.common import Types
from pyflink.datastream import ProcessFunction
from pyflink.table import StreamTableEnvironment, Table

from plantwire.jobs.frame_tables import SAMPLES
from plantwire.schemas.windows import FIELD_SEPARATOR, FIVE_MINUTES, ONE_SECOND, RECORD_SEPARATOR, Window

NAME: Final = "telemetry-aggregation"
PACKED_WINDOWS: Final = Types.ROW([Types.STRING(), Types.LONG(), Types.STRING()])
PACKS: Final = 8
"""Rows that the windows of one moment are packed into: few calls into Python, none of them long."""
QUERY_VERSION: Final = 2
"""To be raised with every change of the queries, those of `jobs.frame_tables` included: operators have their
identity from it and from their place in the query, and must not take up the state of others.
"""
VIEWS: Final = {ONE_SECOND: "seconds", FIVE_MINUTES: "minutes"}

_VALUES: Final = (
    "SUM({total}) AS `total`, MIN({smallest}) AS `smallest`, MAX({largest}) AS `largest`, "
    "{count} AS `samples`"
)


def name_operators(tables: StreamTableEnvironment) -> None:
    """Give SQL's operators their identity; before anything is made in `tables`."""
    tables.get_config().set("table.exec.uid.format", f"{NAME}-{QUERY_VERSION}-<id>_<transformation>")


def create_windows(tables: StreamTableEnvironment) -> None:
    """The views `seconds` and `minutes` of `samples`."""
    # A window's bounds are told in the session's time zone; UTC knows no daylight saving time.
    tables.get_config().set("table.local-time-zone", "UTC")
    of_samples = _VALUES.format(total="`number`", smallest="`number`", largest="`number`", count="COUNT(*)")
    tables.execute_sql(
        f"""
        CREATE TEMPORARY VIEW `seconds` AS
        SELECT `device_id`, `metric`, `window_start`, `window_end`, `window_time`, {of_samples}
        FROM TABLE(TUMBLE(TABLE `{SAMPLES}`, DESCRIPTOR(`measured`), INTERVAL '1' SECOND))
        GROUP BY `device_id`, `metric`, `window_start`, `window_end`, `window_time`
        """  # noqa: S608 - constants of ours
    )
    # Without the bounds of the seconds, which the minutes' own would clash with.
    tables.execute_sql(
        """
        CREATE TEMPORARY VIEW `told_seconds` AS
        SELECT `device_id`, `metric`, `window_time` AS `told`, `total`, `smallest`, `largest`, `samples`
        FROM `seconds`
        """
    )
    of_seconds = _VALUES.format(
        total="`total`", smallest="`smallest`", largest="`largest`", count="SUM(`samples`)"
    )
    tables.execute_sql(
        f"""
        CREATE TEMPORARY VIEW `minutes` AS
        SELECT `device_id`, `metric`, `window_start`, `window_end`, {of_seconds}
        FROM TABLE(
          HOP(TABLE `told_seconds`, DESCRIPTOR(`told`), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))
        GROUP BY `device_id`, `metric`, `window_start`, `window_end`
        """  # noqa: S608 - constants of ours
    )


def packed_windows(
    tables: StreamTableEnvironment, windows: Sequence[Window] = (ONE_SECOND, FIVE_MINUTES)
) -> Table:
    """The windows of `samples` as rows of (window, end in s, packed values)."""
    create_windows(tables)
    return tables.sql_query(" UNION ALL ".join(_packed(window.name, VIEWS[window]) for window in windows))


def build(tables: StreamTableEnvironment, show: ProcessFunction) -> None:
    """Windows of `samples`, packed, to `show`."""
    windows = tables.to_append_stream(packed_windows(tables), PACKED_WINDOWS)
    windows.process(show, Types.STRING()).name("show-windows").uid("show-windows")


def _packed(window: str, view: str) -> str:
    fields = ["`device_id`", "`metric`"]
    fields += [f"CAST(`{name}` AS STRING)" for name in ("total", "smallest", "largest", "samples")]
    record = f" || '{FIELD_SEPARATOR}' || ".join(fields)
    return f"""
        SELECT '{window}' AS `window_name`,
               UNIX_TIMESTAMP(DATE_FORMAT(`window_end`, 'yyyy-MM-dd HH:mm:ss')) AS `end_s`,
               LISTAGG({record}, '{RECORD_SEPARATOR}') AS `packed`
        FROM `{view}`
        GROUP BY `window_start`, `window_end`, MOD(HASH_CODE(`device_id`), {PACKS})
        """  # noqa: S608 - constants of ours
