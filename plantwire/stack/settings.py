"""Settings of the embedded stack; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: one frozen `StackSettings`, built once, and the addresses that follow from it.
Guarantees: a server whose address is set is external: it is not started, only checked; every other one is
ours, on the loopback address, on the port that its setting names.
Not here: settings of the processes themselves (gateway/settings.py, distribution/settings.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

import msgspec
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from plantwire.platform.settings import SharedSettings, default_home
from plantwire.stack.errors import StackError
from plantwire.stack.ports import LOOPBACK

LIGHT: Final = "light"
PROJECT = Path(__file__).resolve().parents[2]
# As libpq and Redis take it: ?password=x, or `host=h password='x y'` without a URL.
PASSWORD_BY_NAME = re.compile(r"((?:\b|_|ssl)password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&#]*)", re.IGNORECASE)


class Addresses(msgspec.Struct, frozen=True):
    """Where everything is."""

    kafka: str
    redis: str
    database: str
    mqtt: str
    flink: str
    gateway: str
    dashboard: str

    def redacted(self) -> dict[str, str]:
        """The addresses by name, without user names and passwords of external servers."""
        return {name: redact(value) for name, value in msgspec.structs.asdict(self).items()}


class StackSettings(SharedSettings):
    """What `plantwire up` starts, and where."""

    home: Path = Field(default_factory=default_home, description="Folder of data, logs and secrets.")
    kafka_port: int = Field(9092, ge=1, le=65535, description="Port of the embedded Kafka.")
    kafka_controller_port: int = Field(
        9093, ge=1, le=65535, description="Port of the embedded Kafka's controller."
    )
    redis_port: int = Field(6379, ge=1, le=65535, description="Port of the embedded Redis.")
    database_port: int = Field(5432, ge=1, le=65535, description="Port of the embedded PostgreSQL.")
    mqtt_port: int = Field(1883, ge=1, le=65535, description="Port of the embedded MQTT broker.")
    flink_port: int = Field(8081, ge=1, le=65535, description="Port of the embedded Flink's REST and web UI.")
    flink_rpc_port: int = Field(
        6123, ge=1, le=65535, description="Port on which the JobManager and TaskManagers speak."
    )
    flink_spare_task_managers: int = Field(
        1, ge=0, le=8, description="TaskManagers that wait to replace one that dies, beside one per job."
    )
    engine: Literal["flink", "light"] = Field(
        "flink", description="What makes alarms and live values of frames: Flink, or the light engine."
    )
    light_detection_port: int = Field(
        8084, ge=1, le=65535, description="Port of the light engine's detection: health and metrics."
    )
    light_live_port: int = Field(
        8085, ge=1, le=65535, description="Port of the light engine's live picture: health and metrics."
    )
    gateway_port: int = Field(8080, ge=1, le=65535, description="Port of the gateway's HTTP interface.")
    distribution_port: int = Field(
        8000, ge=1, le=65535, description="Port of the dashboard, its API and Socket.IO."
    )
    storage_port: int = Field(8082, ge=1, le=65535, description="Port of the storage's health and metrics.")
    influx_url: str | None = Field(
        None, description="Where InfluxDB is; with it every stored sample is written there as well."
    )
    influx_status_port: int = Field(
        8083, ge=1, le=65535, description="Port of health and metrics of the InfluxDB sink."
    )
    mqtt_username: str | None = Field(None, description="MQTT user; goes before one in the URL.")
    mqtt_password: SecretStr | None = Field(None, description="MQTT password; goes before one in the URL.")
    mqtt_tls_ca: Path | None = Field(
        None, description="PEM file of authorities for mqtts://; the system's where unset."
    )
    scoring_file: Path | None = Field(
        None, description="YAML file of the metrics that get anomaly scores; with it the job for them runs."
    )
    patterns: Path | None = Field(
        None, description="YAML file of telemetry patterns, or folder of such; with it the job for them runs."
    )
    start_timeout_s: float = Field(
        120.0, gt=0, description="Time that each part has to become ready before the start counts as failed."
    )
    savepoint_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Time that `down` waits for a job's savepoint; then its newest checkpoint does.",
    )

    def is_external(self, server: str) -> bool:
        """Whether the server's own setting (`kafka`, `redis`, …) is given, so that it is not ours."""
        return server in self.model_fields_set

    def addresses(self) -> Addresses:
        """Where everything is, external or embedded; the embedded database's without its password."""

        def at(server: str, embedded: str) -> str:
            return str(getattr(self, server)) if self.is_external(server) else embedded

        return Addresses(
            kafka=at("kafka", f"{LOOPBACK}:{self.kafka_port}"),
            redis=at("redis", f"redis://{LOOPBACK}:{self.redis_port}/0"),
            database=at("database", f"postgresql://plantwire@{LOOPBACK}:{self.database_port}/plantwire"),
            mqtt=at("mqtt", f"mqtt://{LOOPBACK}:{self.mqtt_port}"),
            flink=at("flink", f"http://{LOOPBACK}:{self.flink_port}").rstrip("/"),
            gateway=f"http://{LOOPBACK}:{self.gateway_port}",
            dashboard=f"http://{LOOPBACK}:{self.distribution_port}",
        )

    def ports(self) -> dict[str, tuple[str, int]]:
        """The ports that `up` takes: setting → (part, port)."""
        wanted = {"gateway_port": "gateway", "distribution_port": "distribution"}
        wanted["storage_port"] = "storage"
        if self.influx_url is not None:
            wanted["influx_status_port"] = "influx"
        if self.engine == LIGHT:
            wanted |= {"light_detection_port": "alarm-detection", "light_live_port": "live-state"}
        for server, settings in {
            "kafka": ("kafka_port", "kafka_controller_port"),
            "redis": ("redis_port",),
            "database": ("database_port",),
            "mqtt": ("mqtt_port",),
            "flink": ("flink_port", "flink_rpc_port"),
        }.items():
            if not self.is_external(server) and not (server == "flink" and self.engine == LIGHT):
                wanted |= dict.fromkeys(settings, server)
        return {setting: (part, int(getattr(self, setting))) for setting, part in wanted.items()}

    def variables(self) -> dict[str, str]:
        """The environment in which the project's own processes find everything; passwords only of others."""
        addresses = self.addresses()
        files = {"PLANTWIRE_SCORING_FILE": self.scoring_file, "PLANTWIRE_PATTERNS": self.patterns}
        return {
            **{name: str(path.resolve()) for name, path in files.items() if path is not None},
            "PLANTWIRE_HOME": str(self.home),
            "PLANTWIRE_KAFKA": addresses.kafka,
            "PLANTWIRE_REDIS": addresses.redis,
            "PLANTWIRE_DATABASE": addresses.database,
            "PLANTWIRE_MQTT": addresses.mqtt,
            "PLANTWIRE_FLINK": addresses.flink,
            "PLANTWIRE_GATEWAY_PORT": str(self.gateway_port),
            "PLANTWIRE_DISTRIBUTION_PORT": str(self.distribution_port),
            "PLANTWIRE_STORAGE_PORT": str(self.storage_port),
            "PLANTWIRE_LIGHT_DETECTION_PORT": str(self.light_detection_port),
            "PLANTWIRE_LIGHT_LIVE_PORT": str(self.light_live_port),
            "PLANTWIRE_INFLUX_STATUS_PORT": str(self.influx_status_port),
        }


class RecordedSettings(StackSettings):
    """The settings of a stack that runs already: from its record, never from this process's environment."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in."""
        return (init_settings,)


def load_settings() -> StackSettings:
    """The settings from the environment; raises StackError with the variable that is wrong."""
    try:
        return StackSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"PLANTWIRE_{'_'.join(str(part) for part in first['loc']).upper()}"
        raise StackError(f"{name} is not valid: {first['msg']} (it is {first['input']!r})") from None


def redact(address: str) -> str:
    """An address without the user and password in it, wherever it has them: `user:password@`, or by name."""
    text = PASSWORD_BY_NAME.sub(r"\1***", address)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    # By hand, because a password may hold what ends the host for a parser.
    end = rest.rfind("@")
    return f"{scheme}://{rest[end + 1 :]}"
