"""Every target there is. What is read from outside has one; a new decoder gets a line here."""

from __future__ import annotations

from typing import Final

from tests.fuzz.target import Target

_TELEMETRY: Final = "tests.fuzz.telemetry_targets"
_SPARKPLUG: Final = "tests.fuzz.sparkplug_targets"
_CHIRPSTACK: Final = "tests.fuzz.chirpstack_targets"
_STORED: Final = "tests.fuzz.stored_targets"
_SETTINGS: Final = "tests.fuzz.settings_targets"
_JSON: Final = ("plantwire.gateway.decode_json", "plantwire.schemas.identifiers")
_AVRO: Final = ("plantwire.gateway.decode_avro", "plantwire.gateway.decode_json", "plantwire.schemas.codec")
_HOST: Final = "plantwire.gateway.sparkplug"
_LORAWAN: Final = "plantwire.gateway.chirpstack"
_YAML: Final = ("plantwire.schemas.rule_files", "plantwire.schemas.rule_yaml")

_FRAME_WORDS: Final = (
    *(b'"metrics"', b'"timestamp"', b'"sequence"', b'"site"', b'"quality"', b'"historical"'),
    *(
        b"true",
        b"false",
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
)
_BATCH_WORDS: Final = (*_FRAME_WORDS, b'"frames"', b'"deviceId"')
_EVENT_WORDS: Final = (
    *(b'"deviceInfo"', b'"devEui"', b'"applicationId"', b'"object"', b'"data"', b'"time"', b'"rxInfo"'),
    *(b'"tags"', b'"plantwire_codec"', b'"cayenne-lpp"', b'"fCnt"', b'"fPort"', b'"snr"', b'"gwTime"'),
    *(b"null", b"true", b"1e999", b"{", b"}", b"[", b"]", b'"2024-01-01T00:00:00.5+23:59"'),
)
_RULE_WORDS: Final = (
    *(b"rules:", b"- id:", b"devices:", b"metric:", b"limits:", b"above:", b"below:", b"deadband:"),
    *(b"on_delay_ms:", b"off_delay_ms:", b"message:", b"critical:", b"high:", b"{value}", b"&a", b"*a"),
    *(b"!!", b"---", b"? ", b"|", b">", b".inf", b"0x", b"0o", b"1_000", b"<<:", b"%YAML"),
)

TARGETS: Final = (
    Target("json", _TELEMETRY, _JSON, words=_FRAME_WORDS),
    Target("batch", _TELEMETRY, _JSON, words=_BATCH_WORDS),
    Target("avro-frame", _TELEMETRY, _AVRO, max_len=512),
    Target("avro-file", _TELEMETRY, _AVRO, max_len=6000),
    Target("gzip", _TELEMETRY, ("plantwire.gateway.http_body",), max_len=4096),
    Target("headers", _TELEMETRY, ("plantwire.gateway.http_media",), max_len=256),
    Target("token", _TELEMETRY, ("plantwire.platform.tokens", "jwt"), max_len=512),
    Target("sparkplug", _SPARKPLUG, (_HOST,), max_len=4096, short_runs=2_000),
    Target("sparkplug-topic", _SPARKPLUG, (f"{_HOST}.topic", "plantwire.schemas.identifiers"), max_len=600),
    Target("host-state", _SPARKPLUG, (f"{_HOST}.state_topic",), max_len=256),
    Target("edge-node", _SPARKPLUG, ("plantwire.simulator.sparkplug",), max_len=1024),
    Target("chirpstack", _CHIRPSTACK, (_LORAWAN,), max_len=2048, words=_EVENT_WORDS),
    Target("chirpstack-topic", _CHIRPSTACK, (f"{_LORAWAN}.topic", f"{_LORAWAN}.decode"), max_len=256),
    Target("cayenne", _CHIRPSTACK, (f"{_LORAWAN}.cayenne_lpp",), max_len=256),
    Target("stored-frame", _TELEMETRY, ("plantwire.schemas.codec",), max_len=512),
    Target("frame-layout", _STORED, ("plantwire.schemas.frame_layout",), max_len=512, short_runs=2_000),
    Target("buffer-row", _STORED, ("plantwire.gateway.buffer.rows",), max_len=512),
    Target("edge-state", _STORED, ("plantwire.domain",), max_len=512),
    Target(
        "saved-state", _STORED, ("plantwire.gateway.edge_alarms.saved_state", "plantwire.domain.packed_state")
    ),
    Target("stored-rule", _STORED, ("plantwire.domain", "plantwire.schemas.codec"), max_len=256),
    Target(
        "rule-file", _SETTINGS, (*_YAML, "plantwire.domain.rule_book"), words=_RULE_WORDS, short_runs=1_000
    ),
    Target("reporting-file", _SETTINGS, ("plantwire.gateway.reporting_file", *_YAML), short_runs=1_000),
    Target("scoring-file", _SETTINGS, ("plantwire.schemas.scoring_files", *_YAML), short_runs=1_000),
    Target("codec-file", _SETTINGS, (f"{_LORAWAN}.codec_choice", *_YAML), max_len=512, short_runs=1_000),
)
BY_NAME: Final = {target.name: target for target in TARGETS}
