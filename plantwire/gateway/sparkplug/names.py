"""Group, edge node and device → Plantwire's device id. Pure.

In: ids as in the topic. Out: a device id, or `Rejected`.
Guarantees: what is returned is a device id (`schemas.identifiers`), and no two of Sparkplug's give the same.
Not here: the topic (`topic`).

The id is ``{group}:{node}`` or ``{group}:{node}:{device}``. In each part every character outside of
``A-Z a-z 0-9 . _ -`` becomes ``@XX`` for each of its UTF-8 bytes, upper-case hexadecimal. A device id begins
with a letter or a digit: one that would not is preceded by ``0@``, which no escape looks like.
"""

from __future__ import annotations

import re
from typing import Final

from plantwire.gateway.rejected import Reason, Rejected
from plantwire.gateway.sparkplug.outcome import EdgeNodeId
from plantwire.schemas.identifiers import DEVICE_ID_MAX_CHARACTERS, is_device_id

_OUTSIDE: Final = re.compile(r"[^A-Za-z0-9._-]")
_BEGINS_WELL: Final = re.compile(r"[A-Za-z0-9]")


def device_id_of(edge_node: EdgeNodeId, device: str | None) -> str | Rejected:
    """The device id of an edge node (device None) or of one of its devices."""
    parts = (edge_node.group, edge_node.node) if device is None else (*edge_node, device)
    if not all(parts):
        return Rejected(Reason.INVALID_DEVICE_ID, "A group, edge node or device id is empty.")
    try:
        text = ":".join(_OUTSIDE.sub(_escaped, part) for part in parts)
    except UnicodeEncodeError:
        return Rejected(Reason.INVALID_DEVICE_ID, "A group, edge node or device id is no UTF-8.")
    if not _BEGINS_WELL.match(text):
        text = "0@" + text
    if not is_device_id(text):
        return Rejected(
            Reason.INVALID_DEVICE_ID,
            f"Group, edge node and device make an id of {len(text)} characters; "
            f"at most {DEVICE_ID_MAX_CHARACTERS}.",
        )
    return text


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"@{byte:02X}" for byte in match.group().encode())
