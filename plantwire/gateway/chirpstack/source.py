"""ChirpStack v4 as a source of the gateway's MQTT connection.

In: the settings, and the codecs installed. Out: the `MqttSource` with the protocol `chirpstack`.
Guarantees: a codec file that cannot be used stops the start and says every line and reason.
Not here: decoding (`decode`).
"""

from __future__ import annotations

from plantwire.gateway.chirpstack.codec_choice import CodecChoice, CodecFileError
from plantwire.gateway.chirpstack.codecs import Codecs, load_codecs
from plantwire.gateway.chirpstack.decode import PROTOCOL, ChirpstackDecoder
from plantwire.gateway.chirpstack.settings import ChirpstackSettings
from plantwire.gateway.chirpstack.topic import topic_filter
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Outcome


class ChirpstackSource:
    """The `MqttSource` of LoRaWAN devices."""

    protocol = PROTOCOL

    def __init__(self, decoder: ChirpstackDecoder) -> None:
        self._decoder = decoder
        self.filters = (topic_filter(decoder.topic_prefix),)

    def decode(self, topic: str, payload: bytes, received_us: int) -> Outcome:
        """See `ChirpstackDecoder.decode`."""
        return self._decoder.decode(topic, payload, received_us)


def build_chirpstack_source(
    settings: ChirpstackSettings, limits: DecodeLimits, codecs: Codecs | None = None
) -> ChirpstackSource:
    """The source that the settings describe, with the installed codecs unless some are given.

    Raises SystemExit where the codec file cannot be used.
    """
    codecs = codecs or load_codecs()
    choice = CodecChoice()
    if settings.chirpstack_codecs_file is not None:
        try:
            choice = CodecChoice.from_file(settings.chirpstack_codecs_file, codecs.names)
        except CodecFileError as error:
            raise SystemExit(f"PLANTWIRE_CHIRPSTACK_CODECS_FILE:\n{error}") from None
    return ChirpstackSource(ChirpstackDecoder(settings.chirpstack_topic_prefix, limits, codecs, choice))
