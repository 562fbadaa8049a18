"""Which devices a run has, and by which outlet each of them sends.

In: the options of a run. Out: senders, and the connections that have to be kept up for them.
Guarantees: what no device uses is not connected to.
Not here: the machines (`simulator.plant`, `sparkplug.line`, `lorawan.sensors`), the options' texts
(`simulator.cli`).
"""

from __future__ import annotations

import typing
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any

import msgspec

from plantwire.simulator import nab
from plantwire.simulator.broker import BrokerAddress
from plantwire.simulator.lorawan.outlet import ChirpStackOutlet
from plantwire.simulator.lorawan.sensors import build_sensors
from plantwire.simulator.mqtt_outlet import MqttOutlet
from plantwire.simulator.outlet import Outlet
from plantwire.simulator.plant import build_plant
from plantwire.simulator.run import Device, ReplayedMachine, Sender, SimulatedMachine
from plantwire.simulator.sparkplug.line import NODE_METRICS, EdgeNode, build_lines
from plantwire.simulator.sparkplug.outlet import SparkplugOutlet
from plantwire.simulator.sparkplug.session import EdgeNodeSession


class Protocol(StrEnum):
    """What simulated devices speak."""

    HTTP = "http"
    MQTT = "mqtt"
    """Plain JSON."""
    SPARKPLUG = "sparkplug"
    CHIRPSTACK = "chirpstack"


class Options(msgspec.Struct, frozen=True):
    """What a run is to do."""

    gateway_url: str
    broker: BrokerAddress
    protocols: frozenset[Protocol]
    devices: int
    edge_nodes: int
    node_devices: int
    sparkplug_host: str | None
    sensors: int
    sensor_interval_s: float
    rate_hz: float
    speed: float
    seed: int
    nab_samples_per_s: float
    duration_s: float

    def has_plain_devices(self) -> bool:
        """Whether machines send by HTTP or plain MQTT."""
        return not self.protocols.isdisjoint({Protocol.HTTP, Protocol.MQTT})

    def is_empty(self) -> bool:
        """Whether nothing would be simulated."""
        return not (
            (self.has_plain_devices() and (self.devices or self.nab_samples_per_s))
            or (Protocol.SPARKPLUG in self.protocols and self.edge_nodes)
            or (Protocol.CHIRPSTACK in self.protocols and self.sensors)
        )


class Connection(typing.Protocol):
    """Something that has to run beside the devices."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Keep it up, until cancelled."""
        ...


class Fleet(msgspec.Struct, frozen=True):
    """The devices of a run."""

    senders: list[Sender]
    connections: list[Connection]


def build_fleet(options: Options, http: Outlet) -> Fleet:
    """The machines, the replayed one, the edge nodes and the sensors, each with its outlet."""
    fleet = Fleet([], [])
    if options.has_plain_devices():
        _add_plain_devices(fleet, options, http)
    if Protocol.SPARKPLUG in options.protocols:
        for node in build_lines(
            options.edge_nodes, options.node_devices, options.seed, 1.0 / options.rate_hz, options.speed
        ):
            _add_edge_node(fleet, options, node)
    if Protocol.CHIRPSTACK in options.protocols and options.sensors:
        sensors = build_sensors(options.sensors, options.seed, options.sensor_interval_s, options.speed)
        chirpstack = ChirpStackOutlet(options.broker, sensors)
        fleet.connections.append(chirpstack)
        fleet.senders.extend(Sender(sensor, chirpstack) for sensor in sensors)
    return fleet


def _add_plain_devices(fleet: Fleet, options: Options, http: Outlet) -> None:
    mqtt = MqttOutlet(options.broker)
    has_http, has_mqtt = Protocol.HTTP in options.protocols, Protocol.MQTT in options.protocols
    for index, machine in enumerate(build_plant(options.devices, options.seed)):
        # Of both ways by rows of eight, so that every kind of machine is there both ways.
        by_http = has_http and (not has_mqtt or (index + index // 8) % 2 == 0)
        device = SimulatedMachine(machine, 1.0 / options.rate_hz, options.speed)
        fleet.senders.append(Sender(device, http if by_http else mqtt))
    if options.nab_samples_per_s:
        replayed = ReplayedMachine(nab.Replay(nab.load_samples()), options.nab_samples_per_s)
        fleet.senders.append(Sender(replayed, http if has_http else mqtt))
    if any(sender.outlet is mqtt for sender in fleet.senders):
        fleet.connections.append(mqtt)


def _add_edge_node(fleet: Fleet, options: Options, node: EdgeNode) -> None:
    session = EdgeNodeSession(
        node.group, node.name, NODE_METRICS, node.device_metrics(), options.sparkplug_host
    )
    # What the first births state, should they come before the first frames.
    attached: tuple[Device, ...] = (node.itself, *node.machines.values())
    for device in attached:
        session.report(node.names()[device.device_id], device.values_at(0.0, 0), 0)
    outlet = SparkplugOutlet(options.broker, session, node.names(), node.write)
    fleet.connections.append(outlet)
    fleet.senders.extend(Sender(device, outlet) for device in attached)
