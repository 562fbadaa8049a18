"""TimescaleDB's jobs, for the tests of what they do."""

from __future__ import annotations

from psycopg import errors

from plantwire.storage.migration import Connection
from tests.integration.storage.storage_rig import wait_for

KINDS = ("policy_refresh_continuous_aggregate", "policy_compression", "policy_retention")


def policies(connection: Connection) -> dict[str, dict[str, int]]:
    """Kind → relation → job."""
    rows = connection.execute(
        "SELECT proc_name, hypertable_name, job_id FROM timescaledb_information.jobs "
        "WHERE proc_name = ANY(%s)",
        (list(KINDS),),
    )
    found: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for kind, relation, job in rows:
        found[kind][relation] = job
    return found


def run_job(connection: Connection, job: int) -> None:
    """Run it now, once TimescaleDB itself does not."""

    def ran() -> bool:
        try:
            connection.execute(f"CALL run_job({job})".encode())
        except (errors.LockNotAvailable, errors.DataException):  # the scheduler is at it
            return False
        return True

    wait_for(ran, 20, "the job runs")
