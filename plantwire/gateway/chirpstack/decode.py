"""ChirpStack v4 events → frames, or the reason why not. Pure: no clock, no I/O.

In: topic and JSON payload of an event, when it came, and what decodes bytes (`codecs`, `codec_choice`). Out:
`Decoded`, `Unneeded` or `Rejected`.
Guarantees: never raises, whatever topic and bytes are. The device is the topic's, and the payload must say
the same, so that a broker's access list on topics holds for what is in the payload too. One event is one
frame: the object's values under their own names, what LoRaWAN adds under `lorawan/`.
Not here: the shape of events (`events`), repeated events (`mqtt_transport`).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from plantwire.gateway.chirpstack.codec_choice import CodecChoice
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.event_time import choose_event_time_ms
from plantwire.gateway.chirpstack.events import (
    AckEvent,
    DeviceInfo,
    Event,
    JoinEvent,
    LocationEvent,
    LogEvent,
    StatusEvent,
    TxAckEvent,
    UplinkEvent,
)
from plantwire.gateway.chirpstack.flatten import FlattenError, flatten_object, metric_of
from plantwire.gateway.chirpstack.topic import EventTopic, parse_topic
from plantwire.gateway.decode_json import FRAME_MAX_BYTES, DecodeLimits
from plantwire.gateway.mqtt_source import Decoded, Outcome, Remark, Unneeded
from plantwire.gateway.rejected import Reason, Rejected
from plantwire.schemas.identifiers import is_metric_name
from plantwire.schemas.records import Metric, TelemetryFrame

PROTOCOL: Final = "chirpstack"
SITE_TAG: Final = "site"
DATA_MAX_BYTES: Final = 255
"""More than any LoRaWAN frame carries: its length is one byte on the air."""
_INTEGRATION_EVENT: Final = "integration"
"""What other services tell ChirpStack about a device, each in its own shape."""
_METRIC_OVERHEAD_BYTES: Final = 32
_LOG_REMARKS: Final = {"ERROR": Remark.LOG_ERROR, "WARNING": Remark.LOG_WARNING}

_Metrics = list[Metric]
_Remarks = list[Remark]


class ChirpstackDecoder(msgspec.Struct, frozen=True):
    """What decoding an event depends on."""

    topic_prefix: str
    limits: DecodeLimits
    codecs: Codecs
    choice: CodecChoice

    def decode(self, topic: str, payload: bytes, received_us: int) -> Outcome:
        """What an event becomes; `received_us` is when it came, microseconds since the epoch."""
        parts = parse_topic(topic, self.topic_prefix)
        if parts is None:
            return Rejected(
                Reason.INVALID_DEVICE_ID,
                "The topic is none of ChirpStack's events, or its device id no EUI of 16 hex digits.",
            )
        if parts.event == _INTEGRATION_EVENT:
            return Unneeded.NOTHING_TO_FORWARD
        kind = _KINDS.get(parts.event)
        if kind is None:
            return Rejected(Reason.UNKNOWN_EVENT, f"ChirpStack has no event {parts.event[:64]!r}.")
        try:
            event = _parse(kind[0], payload)
            _check_device(event.device_info, parts)
            remarks: _Remarks = []
            metrics = kind[1](self, event, remarks)
            return self._decoded(parts, event, metrics, remarks, received_us)
        except FlattenError as refusal:
            return refusal.rejected

    def _decoded(
        self, parts: EventTopic, event: Event, metrics: _Metrics, remarks: _Remarks, received_us: int
    ) -> Decoded:
        _check_size(metrics, self.limits.metrics_per_frame_max)
        received_ms = received_us // 1000
        uplink = event if isinstance(event, UplinkEvent) else None
        event_time_ms, replaced = choose_event_time_ms(
            event.time, uplink.rx_info if uplink else (), received_ms, self.limits.time_ahead_max_ms
        )
        if replaced:
            remarks.append(Remark.TIME_REPLACED)
        frame = TelemetryFrame(
            device_id=parts.dev_eui,
            site=_site(event.device_info),
            sequence=uplink.f_cnt if uplink else None,
            event_time_ms=event_time_ms,
            received_time_ms=received_ms,
            protocol=PROTOCOL,
            historical=False,
            metrics=tuple(metrics),
            gateway_in_us=received_us,
        )
        # All events of one reception share ChirpStack's id: the kind of event belongs to the key.
        unique = event.deduplication_id
        key = f"{parts.event}/{parts.dev_eui}/{unique}" if 0 < len(unique) <= 64 else None
        return Decoded((frame,), key, tuple(remarks))

    def uplink_metrics(self, event: Any, remarks: _Remarks) -> _Metrics:
        """`up`: the decoded values, then how the uplink was received."""
        uplink: UplinkEvent = event
        metrics_max = self.limits.metrics_per_frame_max
        if uplink.object is not None:
            metrics = flatten_object(uplink.object, metrics_max)
        elif uplink.data:
            metrics = self._decoded_data(uplink, remarks, metrics_max)
        else:
            metrics = []  # MAC commands only, or a sign of life
        return metrics + _radio_metrics(uplink)

    def _decoded_data(self, uplink: UplinkEvent, remarks: _Remarks, metrics_max: int) -> _Metrics:
        data = _data(uplink.data)
        if uplink.join_server_context is not None:
            remarks.append(Remark.ENCRYPTED)
            return [Metric("lorawan/data", None, data.hex())]
        info = uplink.device_info
        name = self.choice.choose(info.tags, info.device_profile_name)
        if name is None:
            remarks.append(Remark.NO_CODEC)
            return [Metric("lorawan/data", None, data.hex())]
        return self.codecs.decode(name, data, uplink.f_port, metrics_max)


def _radio_metrics(uplink: UplinkEvent) -> _Metrics:
    metrics = [
        Metric("lorawan/dr", float(uplink.dr)),
        Metric("lorawan/f_cnt", float(uplink.f_cnt)),
        Metric("lorawan/f_port", float(uplink.f_port)),
        Metric("lorawan/gateways", float(len(uplink.rx_info))),
    ]
    if uplink.rx_info:
        # FSK has no SNR: there the RSSI decides.
        best = max(uplink.rx_info, key=lambda reception: (reception.snr, reception.rssi))
        metrics += [metric_of("lorawan/rssi", best.rssi), metric_of("lorawan/snr", best.snr)]
    return metrics


def _status_metrics(_decoder: ChirpstackDecoder, event: Any, _remarks: _Remarks) -> _Metrics:
    status: StatusEvent = event
    # On external power the level is left out like a 0: it must not look like an empty battery.
    unknown = status.external_power_source or status.battery_level_unavailable
    return [
        metric_of("lorawan/battery", None if unknown else status.battery_level),
        metric_of("lorawan/margin", status.margin),
        metric_of("lorawan/external_power", status.external_power_source),
    ]


def _join_metrics(_decoder: ChirpstackDecoder, event: Any, _remarks: _Remarks) -> _Metrics:
    join: JoinEvent = event
    return [metric_of("lorawan/dev_addr", join.dev_addr)]


def _ack_metrics(_decoder: ChirpstackDecoder, event: Any, _remarks: _Remarks) -> _Metrics:
    ack: AckEvent = event
    return [
        metric_of("lorawan/ack/queue_item_id", ack.queue_item_id),
        metric_of("lorawan/ack/acknowledged", ack.acknowledged),
        metric_of("lorawan/ack/f_cnt_down", ack.f_cnt_down),
    ]


def _txack_metrics(_decoder: ChirpstackDecoder, event: Any, _remarks: _Remarks) -> _Metrics:
    txack: TxAckEvent = event
    return [
        metric_of("lorawan/txack/queue_item_id", txack.queue_item_id),
        metric_of("lorawan/txack/f_cnt_down", txack.f_cnt_down),
        metric_of("lorawan/txack/gateway_id", txack.gateway_id),
    ]


def _log_metrics(_decoder: ChirpstackDecoder, event: Any, remarks: _Remarks) -> _Metrics:
    entry: LogEvent = event
    level = str(entry.level)
    remarks.append(_LOG_REMARKS.get(level, Remark.LOG_INFO))
    return [
        metric_of("lorawan/log/level", level),
        metric_of("lorawan/log/code", str(entry.code)),
        metric_of("lorawan/log/description", entry.description),
    ]


def _location_metrics(_decoder: ChirpstackDecoder, event: Any, _remarks: _Remarks) -> _Metrics:
    location = event.location
    metrics = [
        metric_of("lorawan/latitude", location.latitude),
        metric_of("lorawan/longitude", location.longitude),
        metric_of("lorawan/altitude", location.altitude),
        metric_of("lorawan/location_source", str(location.source)),
    ]
    if location.accuracy:  # 0 is a field left out, not a perfect position
        metrics.append(metric_of("lorawan/accuracy", location.accuracy))
    return metrics


_Read = Callable[[ChirpstackDecoder, Any, _Remarks], _Metrics]


def _kind(event: type[Event], read: _Read) -> tuple[msgspec.json.Decoder[Any], _Read]:
    return msgspec.json.Decoder(event), read


_KINDS: Final[Mapping[str, tuple[msgspec.json.Decoder[Any], _Read]]] = {
    "up": _kind(UplinkEvent, ChirpstackDecoder.uplink_metrics),
    "status": _kind(StatusEvent, _status_metrics),
    "join": _kind(JoinEvent, _join_metrics),
    "ack": _kind(AckEvent, _ack_metrics),
    "txack": _kind(TxAckEvent, _txack_metrics),
    "log": _kind(LogEvent, _log_metrics),
    "location": _kind(LocationEvent, _location_metrics),
}


def _parse(decoder: msgspec.json.Decoder[Any], payload: bytes) -> Event:
    try:
        event: Event = decoder.decode(payload)
    except msgspec.ValidationError as error:
        if str(error).startswith("Number out of range"):
            raise FlattenError(Reason.NOT_A_NUMBER, f"{error}.") from None
        raise FlattenError(Reason.BAD_SHAPE, f"{error}.") from None
    except RecursionError:
        raise FlattenError(Reason.BAD_SHAPE, "The JSON is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FlattenError(Reason.NOT_JSON, f"{error}.") from None
    return event


def _check_device(info: DeviceInfo, parts: EventTopic) -> None:
    if info.dev_eui.lower() != parts.dev_eui:
        raise FlattenError(
            Reason.TOPIC_MISMATCH, f"The topic is of {parts.dev_eui}, the payload of {info.dev_eui[:64]!r}."
        )
    if info.application_id and info.application_id != parts.application_id:
        raise FlattenError(
            Reason.TOPIC_MISMATCH,
            f"The topic is of application {parts.application_id[:64]!r}, "
            f"the payload of {info.application_id[:64]!r}.",
        )


def _site(info: DeviceInfo) -> str:
    site = info.tags.get(SITE_TAG) or info.application_name
    if site and not is_metric_name(site):
        raise FlattenError(
            Reason.BAD_SHAPE,
            "The site (tag site, or the application's name) has 1 to 256 printable characters.",
        )
    return site


def _data(encoded: str) -> bytes:
    try:
        data = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise FlattenError(Reason.BAD_SHAPE, "data is no base64.") from None
    if len(data) > DATA_MAX_BYTES:
        raise FlattenError(
            Reason.BAD_SHAPE, f"data has {len(data)} bytes; LoRaWAN carries at most {DATA_MAX_BYTES}."
        )
    return data


def _check_size(metrics: _Metrics, metrics_max: int) -> None:
    if len(metrics) > metrics_max:
        raise FlattenError(
            Reason.TOO_MANY_METRICS, f"{len(metrics)} metrics in one frame; at most {metrics_max}."
        )
    size = sum(len(m.name.encode()) + len((m.text or "").encode()) + _METRIC_OVERHEAD_BYTES for m in metrics)
    if size > FRAME_MAX_BYTES:
        raise FlattenError(
            Reason.FRAME_TOO_LARGE, f"A frame of about {size} bytes; at most {FRAME_MAX_BYTES}."
        )
