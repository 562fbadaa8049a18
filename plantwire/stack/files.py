"""Small files that must never be seen half written.

Not here: what is in them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, text: str, mode: int = 0o600, prepare: Callable[[int], None] | None = None
) -> None:
    """Replace `path` by `text` in one step; the folder is made when it is missing.

    `prepare` gets the descriptor of the new file before it takes the place of the old one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            if prepare is not None:
                prepare(descriptor)
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
