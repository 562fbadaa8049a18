"""The telemetry endpoint in OpenAPI: it is no FastAPI route, so its description is written out.

In: the reasons and statuses of `http_transport`. Out: the path items and the components that `http_app` adds
to the document.
Not here: the behaviour (`http_transport`), which the tests hold to the statuses and bodies named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from plantwire.gateway.http_media import AVRO_FILE_TYPES, AVRO_FRAME_TYPE, FINGERPRINT_HEADER, JSON_TYPE
from plantwire.gateway.http_transport import STATUS_OF_REASON
from plantwire.schemas.codec import FRAME_CODEC
from plantwire.schemas.identifiers import DEVICE_ID_MAX_CHARACTERS
from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE

_STATUSES: Final[Mapping[int, str]] = {
    400: "Not JSON or Avro, not gzip where declared, not a number, or not a frame",
    401: "No token, an expired one, or one that is not valid",
    403: "The token does not cover every device of the request, or its role is too low",
    405: "Another method than POST",
    408: "The body did not arrive in time",
    413: "The body is too large, packed or unpacked",
    415: "Another media type or content coding; Accept or Accept-Encoding says what is taken",
    422: "An id, name, time stamp, text, schema or count that is not taken",
    429: "More frames per second than this client may send, or too many invalid tokens from this address",
    503: "Not stored for now: try again after Retry-After seconds",
}
_INTEGER_HEADER: Final = {"schema": {"type": "integer", "minimum": 1}}
_TEXT_HEADER: Final = {"schema": {"type": "string"}}
_HEADERS: Final[Mapping[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": _TEXT_HEADER},
    405: {"Allow": _TEXT_HEADER},
    415: {"Accept": _TEXT_HEADER, "Accept-Encoding": _TEXT_HEADER},
    429: {"Retry-After": _INTEGER_HEADER, "RateLimit-Policy": _TEXT_HEADER, "RateLimit": _TEXT_HEADER},
    503: {"Retry-After": _INTEGER_HEADER},
}
_DEVICE_ID: Final[dict[str, Any]] = {
    "type": "string",
    "maxLength": DEVICE_ID_MAX_CHARACTERS,
    "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]*$",
}
_FRAME_PROPERTIES: Final[dict[str, Any]] = {
    "timestamp": {
        "type": "integer",
        "minimum": 1,
        "maximum": 2**53,
        "description": "When the device measured, ms since the epoch; the arrival where left out.",
    },
    "metrics": {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"minLength": 1, "maxLength": 256},
        "additionalProperties": {
            "oneOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string", "maxLength": 8192}]
        },
    },
    "quality": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 192},
    "sequence": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "site": {"type": "string", "maxLength": 256},
    "historical": {
        "type": "boolean",
        "default": False,
        "description": (
            "Store-and-forward data: it raises no live alarm, and moves a live value only where "
            "that is older."
        ),
    },
}
_FRAME_EXAMPLE: Final[dict[str, Any]] = {
    "timestamp": 1767225600000,
    "metrics": {"temperature": 101.2, "running": True, "mode": "auto"},
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": _ref(name)}


_REASONS: Final = sorted(reason.value for reason in STATUS_OF_REASON)
TELEMETRY_COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    "schemas": {
        "Frame": {
            "type": "object",
            "additionalProperties": False,
            "required": ["metrics"],
            "properties": _FRAME_PROPERTIES,
            "examples": [_FRAME_EXAMPLE],
        },
        "DeviceFrame": {
            "type": "object",
            "additionalProperties": False,
            "required": ["deviceId", "metrics"],
            "properties": {"deviceId": _DEVICE_ID, **_FRAME_PROPERTIES},
            "examples": [{"deviceId": "press-1", **_FRAME_EXAMPLE}],
        },
        "Frames": {"oneOf": [_ref("Frame"), _list_of("Frame")]},
        "Batch": {
            "oneOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["frames"],
                    "properties": {"frames": _list_of("DeviceFrame")},
                },
                _list_of("DeviceFrame"),
            ],
        },
        "Accepted": {
            "type": "object",
            "required": ["accepted"],
            "properties": {
                "accepted": {"type": "integer", "minimum": 1, "description": "How many frames are durable."}
            },
        },
        "Problem": {
            "type": "object",
            "description": "RFC 9457.",
            "required": ["type", "title", "status", "reason", "detail"],
            "properties": {
                "type": {"type": "string", "format": "uri", "pattern": "^urn:plantwire:problem:"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "reason": {
                    "type": "string",
                    "description": "The end of `type`, for programs. A refused request has one of: "
                    + ", ".join(_REASONS)
                    + ". A 503 has one of those in docs/gateway.md.",
                },
                "detail": {"type": "string"},
            },
        },
    },
}

_HEADER_PARAMETERS: Final = [
    {
        "name": "Content-Encoding",
        "in": "header",
        "description": "gzip in one member; the limit holds for the body unpacked, too.",
        "schema": {"type": "string", "enum": ["gzip", "x-gzip", "identity"], "default": "identity"},
    },
    {
        "name": FINGERPRINT_HEADER.title(),
        "in": "header",
        "description": f"With {AVRO_FRAME_TYPE}: the writer schema's CRC-64-AVRO fingerprint, in hex.",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$", "default": FRAME_CODEC.fingerprint},
    },
]


def _operation(name: str, summary: str, description: str, json_schema: str) -> dict[str, Any]:
    avro = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": summary,
        "description": description,
        "operationId": name,
        "security": [{"bearer": []}],
        "parameters": list(_HEADER_PARAMETERS),
        "requestBody": {
            "required": True,
            "content": {
                JSON_TYPE: {"schema": _ref(json_schema)},
                AVRO_FRAME_TYPE: avro,
                **dict.fromkeys(AVRO_FILE_TYPES, avro),
            },
        },
        "responses": {
            "202": {"description": "Durable", "content": {JSON_TYPE: {"schema": _ref("Accepted")}}},
            **{str(status): _problem_response(status) for status in _STATUSES},
        },
    }


def _problem_response(status: int) -> dict[str, Any]:
    return {
        "description": _STATUSES[status],
        "headers": _HEADERS.get(status, {}),
        "content": {PROBLEM_MEDIA_TYPE: {"schema": _ref("Problem")}},
    }


_AVRO_TEXT: Final = (
    f" {AVRO_FRAME_TYPE} is one TelemetryFrame as a plain Avro body, application/avro an object container "
    "file of them (codecs null and deflate); received time, protocol, hop stamps and edge state are the "
    "gateway's."
)
_one_device = _operation(
    "sendTelemetry",
    "Send telemetry of one device",
    "A frame or a list of frames. Answers 202 only once every frame is durable." + _AVRO_TEXT,
    "Frames",
)
_one_device["parameters"].insert(0, {"name": "id", "in": "path", "required": True, "schema": _DEVICE_ID})
TELEMETRY_PATHS: Final[dict[str, Any]] = {
    "/api/v1/devices/{id}/telemetry": {"post": _one_device},
    "/api/v1/telemetry": {
        "post": _operation(
            "sendTelemetryBatch",
            "Send telemetry of several devices",
            "The token has to cover every device in it: the batch is taken whole or not at all. Answers 202 "
            "only once every frame is durable." + _AVRO_TEXT,
            "Batch",
        )
    },
}
