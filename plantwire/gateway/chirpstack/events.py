"""The events that ChirpStack v4 publishes, as far as they are read here.

In: JSON, the protobuf JSON mapping of ChirpStack's `integration.proto`: camelCase names, enums as their
names, bytes in base64, default values left out. Out: frozen records with the defaults back in place.
Guarantees: a field that is read has its type; a field that is not known is skipped, so that a newer
ChirpStack is read too.
Not here: what becomes of an event (`decode`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

_Unsigned32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)] | None


class DeviceInfo(msgspec.Struct, frozen=True, rename="camel"):
    """Who the event is about. `tags` are those of application, device profile and device together."""

    dev_eui: str
    application_id: str = ""
    application_name: str = ""
    device_profile_name: str = ""
    tags: dict[str, str] = {}


class RxInfo(msgspec.Struct, frozen=True, rename="camel"):
    """How one LoRaWAN gateway received an uplink: dBm, dB; its own clock where it has GNSS, the server's."""

    rssi: int = 0
    snr: float = 0.0
    gw_time: _Time = None
    ns_time: _Time = None


class Event(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What every event carries. Events of one reception share its `deduplication_id`."""

    device_info: DeviceInfo
    deduplication_id: str = ""
    time: _Time = None


class UplinkEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`up`: a payload. `object` is there where ChirpStack has a codec for the device."""

    dr: _Unsigned32 = 0
    f_cnt: _Unsigned32 = 0
    f_port: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    data: str = ""
    object: dict[str, Any] | None = None
    rx_info: tuple[RxInfo, ...] = ()
    join_server_context: dict[str, Any] | None = None
    """There where ChirpStack has no application session key: then `data` is encrypted."""


class StatusEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`status`: the device's answer to DevStatusReq. `margin` in dB; `battery_level` in percent."""

    margin: int = 0
    external_power_source: bool = False
    battery_level_unavailable: bool = False
    battery_level: float = 0.0


class JoinEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`join`: the device has a new session; sent with its first uplink."""

    dev_addr: str = ""


class AckEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`ack`: the device confirmed a downlink, or did not in time."""

    queue_item_id: str = ""
    acknowledged: bool = False
    f_cnt_down: _Unsigned32 = 0


class TxAckEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`txack`: a gateway took a downlink for transmission; it may not have left yet."""

    queue_item_id: str = ""
    f_cnt_down: _Unsigned32 = 0
    gateway_id: str = ""


class LogEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`log`: something that ChirpStack noticed about the device. A number is an enum value without a name."""

    level: str | int = "INFO"
    code: str | int = "UNKNOWN"
    description: str = ""


class Location(msgspec.Struct, frozen=True, rename="camel"):
    """Degrees; metres."""

    latitude: float = 0.0
    longitude: float = 0.0
    altitude: float = 0.0
    source: str | int = "UNKNOWN"
    accuracy: float = 0.0


class LocationEvent(Event, frozen=True, rename="camel", kw_only=True):
    """`location`: where a resolver found the device."""

    location: Location
