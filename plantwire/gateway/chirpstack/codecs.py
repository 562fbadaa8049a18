"""Codecs by name: what turns an uplink's bytes into values where ChirpStack has no codec for the device.

In: the built-in codecs, and those that installed packages offer as entry points of the group
`plantwire.lorawan_codecs`: a name, and a callable ``(payload: bytes, f_port: int) -> mapping``. Out: metrics.
Guarantees: whatever a codec raises or returns becomes a `FlattenError` with the reason `codec-failed`; one
that cannot be loaded fails its own uplinks only. A built-in name cannot be taken over.
Not here: which device has which codec (`codec_choice`). A codec runs in the gateway's process and thread:
one that takes long holds up everything, and one that is malicious has the gateway's rights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import structlog

from plantwire.gateway.chirpstack.cayenne_lpp import decode_cayenne_lpp
from plantwire.gateway.chirpstack.flatten import FlattenError, flatten_object
from plantwire.gateway.rejected import Reason
from plantwire.schemas.records import Metric

ENTRY_POINT_GROUP: Final = "plantwire.lorawan_codecs"

Codec = Callable[[bytes, int], Mapping[str, object]]

BUILT_IN: Final[Mapping[str, Codec]] = {"cayenne-lpp": decode_cayenne_lpp}
_DETAIL_MAX_CHARACTERS: Final = 200

log = structlog.get_logger()


class Codecs:
    """The codecs there are. `load_codecs` makes one with the installed plug-ins."""

    def __init__(self, codecs: Mapping[str, Codec], unusable: Mapping[str, str] | None = None) -> None:
        self._codecs = {**codecs, **BUILT_IN}
        self._unusable = dict(unusable or {})

    @property
    def names(self) -> frozenset[str]:
        """Every name that may be configured, of codecs that could not be loaded too."""
        return frozenset(self._codecs) | frozenset(self._unusable)

    def decode(self, name: str, payload: bytes, f_port: int, metrics_max: int) -> list[Metric]:
        """The metrics in an uplink's bytes; raises `FlattenError` and nothing else."""
        codec = self._codecs.get(name)
        if codec is None:
            if name in self._unusable:
                raise FlattenError(Reason.CODEC_FAILED, self._unusable[name])
            raise FlattenError(Reason.UNKNOWN_CODEC, f"There is no codec {name[:64]!r}.")
        try:
            decoded = codec(payload, f_port)
            if not isinstance(decoded, Mapping):
                raise TypeError(f"it returned {type(decoded).__name__}, not a mapping")
            return flatten_object(decoded, metrics_max)
        except KeyboardInterrupt:
            raise
        except FlattenError as error:
            raise FlattenError(Reason.CODEC_FAILED, f"Codec {name!r}: {error}") from None
        except BaseException as fault:  # a plug-in may raise anything, SystemExit too
            raise FlattenError(Reason.CODEC_FAILED, f"Codec {name!r}: {_describe(fault)}.") from None


def load_codecs(found: Iterable[EntryPoint] | None = None) -> Codecs:
    """The built-in codecs and the plug-ins: those installed, unless `found` names them."""
    codecs: dict[str, Codec] = {}
    unusable: dict[str, str] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP) if found is None else found:
        name = entry_point.name
        if name in BUILT_IN:
            log.warning("codec_name_taken", codec=name, plugin=entry_point.value)
            continue
        try:
            codec = entry_point.load()
            if not callable(codec):
                raise TypeError("it is not callable")
        except KeyboardInterrupt:
            raise
        except BaseException as fault:
            unusable[name] = f"Codec {name!r} could not be loaded: {_describe(fault)}."
            log.error("codec_not_loaded", codec=name, plugin=entry_point.value, detail=_describe(fault))
        else:
            codecs[name] = codec
    return Codecs(codecs, unusable)


def _describe(fault: BaseException) -> str:
    try:
        text = str(fault)
    except Exception:
        text = ""
    printable = "".join(c if c.isprintable() else "?" for c in text[:_DETAIL_MAX_CHARACTERS])
    return f"{type(fault).__name__}: {printable}" if printable else type(fault).__name__
