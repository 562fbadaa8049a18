"""Settings of the simulator; each comes from the environment variable PLANTWIRE_<NAME>.

What only a run decides (rate, speed, seed …) are options of the command (`simulator.cli`).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from plantwire.platform.settings import SharedSettings, default_home


class SimulatorSettings(SharedSettings):
    """Where the simulated devices send to, and with which token."""

    home: Path = Field(default_factory=default_home, description="Folder of data, logs and secrets.")
    gateway_port: int = Field(8080, ge=1, le=65535, description="Port of the gateway's HTTP interface.")
    mqtt_port: int = Field(1883, ge=1, le=65535, description="Port of the embedded MQTT broker.")
    sparkplug_host_id: str = Field(
        "plantwire", description="Sparkplug host that edge nodes wait for; empty: for none."
    )
    token: SecretStr | None = Field(
        None, description="Access token of role device for every simulated device."
    )
    mqtt_username: str | None = Field(None, description="MQTT user; goes before one in the URL.")
    mqtt_password: SecretStr | None = Field(None, description="MQTT password; goes before one in the URL.")
    mqtt_tls_ca: Path | None = Field(None, description="CA file for mqtts://; default: the system's.")

    def gateway_url(self) -> str:
        """The gateway on this machine."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def mqtt_url(self) -> str:
        """PLANTWIRE_MQTT where it is set, the embedded broker otherwise."""
        return self.mqtt if "mqtt" in self.model_fields_set else f"mqtt://127.0.0.1:{self.mqtt_port}"
