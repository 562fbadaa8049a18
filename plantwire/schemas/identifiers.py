"""What a device id and a metric name may look like.

A device id becomes a Kafka key, an MQTT topic level, a Redis key, a Socket.IO room, a URL segment
and an entry in a token's device list. So it is an allow-list: no MQTT wildcard or separator, no glob
character, no white space, no control character.
"""

from __future__ import annotations

import re

DEVICE_ID_MAX_CHARACTERS = 128
METRIC_NAME_MAX_CHARACTERS = 256

_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z")
# Sparkplug metric names are paths with spaces ("Node Control/Rebirth"), so only what no store
# or terminal takes is refused: C0 and C1 control characters and lone surrogates.
_METRIC_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,256}\Z")


def is_device_id(text: str) -> bool:
    """Whether `text` is a device id: 1–128 of ``A-Z a-z 0-9 . _ : @ -``, first a letter or digit."""
    return _DEVICE_ID.match(text) is not None


def is_metric_name(text: str) -> bool:
    """Whether `text` is a metric name: 1–256 printable characters."""
    return _METRIC_NAME.match(text) is not None
