"""What simulated edge nodes and sensors send is what the gateway decodes, under the same device ids."""

from __future__ import annotations

from plantwire.gateway.chirpstack.codec_choice import CodecChoice
from plantwire.gateway.chirpstack.codecs import Codecs
from plantwire.gateway.chirpstack.decode import ChirpstackDecoder
from plantwire.gateway.decode_json import DecodeLimits
from plantwire.gateway.mqtt_source import Decoded
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.outcome import RequestRebirth, SparkplugLimits
from plantwire.schemas.records import QUALITY_STALE, TelemetryFrame
from plantwire.simulator.frame import Frame
from plantwire.simulator.lorawan.chirpstack import DeviceRecord
from plantwire.simulator.lorawan.sensors import build_sensors
from plantwire.simulator.sparkplug.line import NODE_METRICS, build_lines
from plantwire.simulator.sparkplug.session import Action, EdgeNodeSession, Publish

NOW_MS = 1_700_000_000_000


class Gateway:
    """The gateway's side of Sparkplug; what a node says to it, and the frames that come of it."""

    def __init__(self) -> None:
        self._nodes = EdgeNodes(SparkplugLimits())
        self.frames: dict[str, list[TelemetryFrame]] = {}

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            assert isinstance(action, Publish)
            outcome = self._nodes.take(action.topic, action.payload, NOW_MS * 1000, 0)
            assert outcome.rejected == ()
            assert not any(isinstance(effect, RequestRebirth) for effect in outcome.effects)
            for frame in outcome.frames:
                self.frames.setdefault(frame.device_id, []).append(frame)

    def values(self, device_id: str) -> dict[str, object]:
        """The last values of a device that has them all, as numbers and texts."""
        found: dict[str, object] = {}
        for frame in self.frames[device_id]:
            found.update({m.name: m.text if m.number is None else m.number for m in frame.metrics})
        return found


def test_a_line_arrives_whole_under_its_ids() -> None:
    (node,) = build_lines(1, 4, seed=1, period_s=1.0, speed=1.0)
    session = EdgeNodeSession(node.group, node.name, NODE_METRICS, node.device_metrics(), None)
    gateway = Gateway()
    session.connect(NOW_MS)
    for name, machine in node.machines.items():
        session.report(name, machine.values_at(0.0, 0), NOW_MS)
    session.report(None, node.itself.values_at(0.0, 0), NOW_MS)
    gateway.take(session.subscribed(NOW_MS))
    assert gateway.frames.keys() == node.names().keys()
    for t_s in range(1, 300):  # over more than one round of sequence numbers
        for name, machine in node.machines.items():
            values = machine.values_at(float(t_s), t_s)
            at_ms = NOW_MS + t_s
            gateway.take(session.report(name, values, at_ms) if values else session.device_lost(name, at_ms))
    for machine in node.machines.values():
        last = machine.values_at(299.0, 299)
        seen = gateway.values(machine.device_id)
        assert {frame.site for frame in gateway.frames[machine.device_id]} == {"line-1"}
        for metric, value in last.items():
            assert seen[metric] == value or abs(float(value) - float(str(seen[metric]))) < 1e-3
    stale = [
        frame.device_id
        for frames in gateway.frames.values()
        for frame in frames
        if all(metric.quality == QUALITY_STALE for metric in frame.metrics)
    ]
    assert stale == ["line-1:plc:mixer-01"]  # the one that was stopped within the time


def test_a_death_makes_everything_stale() -> None:
    (node,) = build_lines(1, 2, seed=1, period_s=1.0, speed=1.0)
    session = EdgeNodeSession(node.group, node.name, NODE_METRICS, node.device_metrics(), None)
    gateway = Gateway()
    session.connect(NOW_MS)
    gateway.take(session.subscribed(NOW_MS))
    before = {device_id: len(frames) for device_id, frames in gateway.frames.items()}
    gateway.take(session.leave(NOW_MS + 1))
    for device_id, frames in gateway.frames.items():
        assert len(frames) > before[device_id]
        assert {metric.quality for metric in frames[-1].metrics} == {QUALITY_STALE}


def test_sensors_arrive_decoded_under_their_euis() -> None:
    limits = DecodeLimits(metrics_per_frame_max=100, frames_max=10, time_ahead_max_ms=60_000)
    decoder = ChirpstackDecoder("", limits, Codecs({}), CodecChoice())
    keys: set[str | None] = set()
    for sensor in build_sensors(2, seed=1, period_s=10.0, speed=1.0):
        numbers = iter(range(100))
        record = DeviceRecord(sensor, lambda numbers=numbers: f"id-{next(numbers)}")  # type: ignore[misc]
        values = sensor.values_at(0.0, 0)
        decoded = []
        for message in record.messages(Frame(sensor.device_id, sensor.site, 0, NOW_MS, values)):
            outcome = decoder.decode(message.topic, message.body, (NOW_MS + 5) * 1000)
            assert isinstance(outcome, Decoded), outcome
            assert outcome.remarks == ()
            keys.add(outcome.key)
            decoded += outcome.frames
        join, uplink, status = decoded
        assert {frame.device_id for frame in decoded} == {sensor.device_id}
        assert {frame.site for frame in decoded} == {"utilities"}
        assert (uplink.event_time_ms, uplink.sequence) == (NOW_MS, 0)
        seen = {metric.name: metric.number for metric in uplink.metrics}
        names = {"temperature": "temperature_1", "humidity": "humidity_2", "door": "digital_input_3"}
        for name, value in values.items():
            assert abs(seen[name if sensor.kind.has_codec else names[name]] - float(value)) <= 0.25  # type: ignore[operator]
        assert {metric.name for metric in join.metrics} == {"lorawan/dev_addr"}
        assert {m.name: m.number for m in status.metrics}["lorawan/battery"] == 97.0
    assert len(keys) == 6
