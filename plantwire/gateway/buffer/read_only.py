"""What an edge buffer holds, read while no gateway runs.

In: the buffer's folder. Out: its stats and saved values.
Guarantees: nothing is written, created or locked.
Not here: the running gateway's answer (`/ledger`).
"""

from __future__ import annotations

from pathlib import Path

import apsw

from plantwire.gateway.buffer import census, small_values
from plantwire.gateway.buffer.database import DamagedError
from plantwire.gateway.buffer.entry import BufferStats
from plantwire.gateway.buffer.folder import BufferFolder, FolderInUseError
from plantwire.gateway.buffer.totals import Totals, decode_totals
from plantwire.gateway.buffer.untouched import opened_untouched


def read_only_stats(folder: Path) -> BufferStats:
    """Stats of a buffer that no process has; those of an empty one where there is none.

    Raises `FolderInUseError` while a gateway has it, `DamagedError` where the next start will set it aside.
    """
    return _read(folder)[0]


def read_only_saved(folder: Path, prefix: str) -> dict[str, bytes]:
    """Saved values by key; raises as `read_only_stats`."""
    return {key: value for key, value in _read(folder)[1].items() if key.startswith(prefix)}


def _read(path: Path) -> tuple[BufferStats, dict[str, bytes]]:
    folder = BufferFolder(path)
    if not path.is_dir():
        return BufferStats(0, 0, None, {}), {}
    if folder.in_use():
        raise FolderInUseError(f"{path} is in use: ask the gateway that runs")
    generations = folder.generations()
    if not generations:
        return BufferStats(0, 0, None, {}, folder.set_aside_files()), {}
    try:
        with opened_untouched(folder.database(generations[-1])) as connection:
            written = list(connection.execute("SELECT CAST(value AS BLOB) FROM totals"))
            totals = decode_totals(*written[0]) if written else Totals()
            heads = census.oldest_put_ms(connection)
            stats = BufferStats(
                totals.entries(),
                totals.size_bytes(),
                min((head for head in heads if head is not None), default=None),
                totals.held(),
                folder.set_aside_files(),
                totals.dropped(),
            )
            return stats, dict(small_values.read_all(connection))
    except (apsw.Error, ValueError, TypeError) as error:
        raise DamagedError(f"the buffer in {path} cannot be read: {error}") from error
