"""Settings of the edge alarms; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: fields of `GatewaySettings`, which inherits this class.
Guarantees: a value out of range stops the start with its name.
Not here: where the rules' copy and the state are kept (the edge buffer's folder).
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class EdgeAlarmSettings(BaseSettings):
    """Whether the gateway judges frames itself, and who may listen to it."""

    gateway_edge_alarms: bool = Field(
        False, description="Evaluate alarm rules in the gateway, and serve them at /socket.io."
    )
    gateway_edge_devices_max: int = Field(
        10_000, ge=1, description="Devices that the gateway watches; frames of further ones are counted."
    )
    gateway_edge_clients_max: int = Field(
        100, ge=1, le=5000, description='Local clients; the next is refused with "Server at capacity".'
    )
    gateway_edge_origins: str = Field(
        "",
        description="Origins that a browser may connect from, separated by commas, compared exactly; "
        "the gateway's own where empty.",
    )
    gateway_edge_connect_timeout_s: float = Field(
        5.0, gt=0, description="Time a local WebSocket has to present a valid token."
    )
    gateway_edge_backlog_max_bytes: int = Field(
        256 * 1024, ge=4096, description="Bytes that may wait for a local client before it is disconnected."
    )

    def edge_origins(self, port: int) -> list[str]:
        """The origins in force, given the port that is really listened on."""
        listed = [origin.strip() for origin in self.gateway_edge_origins.split(",") if origin.strip()]
        return listed or [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
