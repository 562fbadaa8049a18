"""The telemetry endpoint in OpenAPI: it is no FastAPI route, so its description is written out.

In: nothing. Out: the path item and the components that `http_app` adds to the document.
Not here: the behaviour (`http_transport`), which the tests hold to the statuses named here.
"""

from __future__ import annotations

from typing import Any, Final

from plantwire.schemas.identifiers import DEVICE_ID_MAX_CHARACTERS
from plantwire.schemas.problem import PROBLEM_MEDIA_TYPE

_STATUSES: Final = {
    "400": "Not JSON, not a number, or not a frame",
    "401": "No token, an expired one, or one that is not valid",
    "403": "The token does not cover this device, or its role is too low",
    "405": "Another method than POST",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "Another type than JSON, or a compressed body",
    "422": "An id, name, time stamp, text or count that is not taken",
    "503": "Not stored for now: try again after Retry-After seconds",
}
_FRAME: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["metrics"],
    "properties": {
        "timestamp": {
            "type": "integer",
            "minimum": 1,
            "maximum": 2**53,
            "description": "When the device measured, ms since the epoch; the arrival where left out.",
        },
        "metrics": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "oneOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string", "maxLength": 8192}]
            },
        },
        "quality": {"type": "integer", "minimum": 0, "maximum": 65535, "default": 192},
        "sequence": {"type": "integer", "minimum": 0},
        "site": {"type": "string", "maxLength": 256},
        "historical": {
            "type": "boolean",
            "default": False,
            "description": "Store-and-forward data: it raises no live alarm and moves no live value.",
        },
    },
    "example": {"timestamp": 1767225600000, "metrics": {"temperature": 101.2, "running": True}},
}

TELEMETRY_COMPONENTS: Final[dict[str, dict[str, Any]]] = {
    "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    "schemas": {
        "Frame": _FRAME,
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "reason", "detail"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "reason": {"type": "string"},
                "detail": {"type": "string"},
            },
        },
    },
}
TELEMETRY_PATHS: Final[dict[str, Any]] = {
    "/api/v1/devices/{id}/telemetry": {
        "post": {
            "summary": "Send telemetry of one device",
            "description": "Answers 202 only once every frame is durable.",
            "operationId": "sendTelemetry",
            "security": [{"bearer": []}],
            "parameters": [
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "schema": {
                        "type": "string",
                        "maxLength": DEVICE_ID_MAX_CHARACTERS,
                        "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]*$",
                    },
                }
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [
                                {"$ref": "#/components/schemas/Frame"},
                                {
                                    "type": "array",
                                    "minItems": 1,
                                    "items": {"$ref": "#/components/schemas/Frame"},
                                },
                            ]
                        }
                    }
                },
            },
            "responses": {
                "202": {
                    "description": "Durable",
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "properties": {"accepted": {"type": "integer"}}}
                        }
                    },
                },
                **{
                    status: {
                        "description": description,
                        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                    }
                    for status, description in _STATUSES.items()
                },
            },
        }
    }
}
