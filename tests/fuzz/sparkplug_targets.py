"""Sparkplug B: topics, payloads, sessions in any order, STATE, and the edge node's side."""

from __future__ import annotations

from itertools import pairwise

from plantwire.gateway.rejected import Rejected
from plantwire.gateway.sparkplug.edge_nodes import EdgeNodes
from plantwire.gateway.sparkplug.outcome import (
    PROTOCOL,
    PROTOCOL_TRANSIENT,
    EdgeNodeId,
    Outcome,
    RequestRebirth,
    SetTimer,
    SparkplugLimits,
)
from plantwire.gateway.sparkplug.state_topic import HostState, parse_state, state_payload
from plantwire.gateway.sparkplug.topic import MessageType, StateTopic, Topic, parse_topic
from plantwire.schemas.sparkplug import sparkplug_b_pb2 as pb
from plantwire.simulator.sparkplug.line import NODE_METRICS, build_lines
from plantwire.simulator.sparkplug.payload import MetricSpec
from plantwire.simulator.sparkplug.session import Action, EdgeNodeSession, Phase, Publish
from tests.fuzz.cursor import Cursor, piece
from tests.fuzz.frame_checks import LIMITS as DECODE_LIMITS
from tests.fuzz.frame_checks import RECEIVED_MS, RECEIVED_US, check_frames, check_rejected
from tests.fuzz.target import Check

PROTOCOLS = frozenset({PROTOCOL, PROTOCOL_TRANSIENT})
LIMITS = SparkplugLimits(
    payload_bytes_max=4096,
    edge_nodes_max=3,
    devices_per_node_max=2,
    metrics_per_device_max=20,
    metrics_max=50,
    metrics_per_frame_max=DECODE_LIMITS.metrics_per_frame_max,
    time_ahead_max_ms=DECODE_LIMITS.time_ahead_max_ms,
)
TYPES = tuple(MessageType)
NODES = ("a", "b", "Node 1", "é", "x" * 130)
DEVICES = ("d", "e", "d:e", "", "x" * 130)
NAMES = ("t", "u", "bdSeq", "Node Control/Rebirth", "", "a/b", "\x00", "é")
RAW, BUILT, EXPIRE, LOSE, REGAIN, SILENT = range(6)


def sparkplug_check() -> Check:
    """A sequence of messages and timers against one host; raw payloads and built ones."""

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        nodes = EdgeNodes(LIMITS)
        now_ms = 0
        while cursor.left:
            step = cursor.byte() % 6
            now_ms += cursor.number(2)
            for outcome in _step(nodes, step, cursor, now_ms):
                _check_outcome(outcome)
            census = nodes.census()
            assert census.edge_nodes <= LIMITS.edge_nodes_max
            assert census.devices <= census.born * LIMITS.devices_per_node_max
            assert 0 <= census.metrics <= LIMITS.metrics_max

    return check


def _step(nodes: EdgeNodes, step: int, cursor: Cursor, now_ms: int) -> list[Outcome]:
    if step in (RAW, BUILT):
        topic = _topic(cursor)
        payload = cursor.piece() if step == RAW else _built(cursor).SerializeToString()
        return [nodes.take(topic, payload, RECEIVED_US, now_ms)]
    if step == EXPIRE:
        return [nodes.expire(EdgeNodeId("g", cursor.choose(NODES)), RECEIVED_US, now_ms)]
    if step == LOSE:
        return list(nodes.lose_broker(RECEIVED_US, now_ms))
    if step == REGAIN:
        return list(nodes.regain_broker(now_ms))
    return list(nodes.forget_silent(RECEIVED_US, now_ms))


def _topic(cursor: Cursor) -> str:
    message, node, device = cursor.choose(TYPES), cursor.choose(NODES), cursor.choose(DEVICES)
    topic = f"spBv1.0/g/{message.value}/{node}"
    return f"{topic}/{device}" if message.value.startswith("D") else topic


def _built(cursor: Cursor) -> pb.Payload:
    payload = pb.Payload()
    shape = cursor.byte()
    if shape & 1:
        payload.timestamp = _time(cursor)
    if shape & 2:
        payload.seq = cursor.byte() if shape & 4 else cursor.number(8)
    for _ in range(cursor.byte() % 8):
        _build_metric(payload.metrics.add(), cursor, 0)
    return payload


def _time(cursor: Cursor) -> int:
    return RECEIVED_MS - cursor.number(3) if cursor.byte() % 4 else cursor.number(8)


def _build_metric(metric: pb.Payload.Metric, cursor: Cursor, depth: int) -> None:
    shape, kinds = cursor.byte(), cursor.byte()
    if shape & 1:
        metric.name = cursor.choose(NAMES)
    if shape & 2:
        metric.alias = cursor.byte() % 12
    if shape & 4:
        metric.timestamp = _time(cursor)
    if shape & 8:
        metric.datatype = cursor.byte() % 40
    metric.is_historical = bool(shape & 16)
    metric.is_transient = shape & 96 == 96
    metric.is_null = shape & 128 == 128 and bool(kinds & 128)
    if kinds & 64:
        metric.properties.keys.append(cursor.choose(("Quality", "x")))
        metric.properties.values.add(type=3, int_value=cursor.choose((0, 192, 500, 7)))
    kind = kinds % 10
    if kind == 0:
        metric.int_value = cursor.number(4)
    elif kind == 1:
        metric.long_value = cursor.number(8)
    elif kind == 2:
        metric.float_value = cursor.double()
    elif kind == 3:
        metric.double_value = cursor.double()
    elif kind == 4:
        metric.boolean_value = bool(cursor.byte())
    elif kind == 5:
        metric.string_value = cursor.text()
    elif kind == 6:
        metric.bytes_value = cursor.piece()
    elif kind == 7:
        _build_dataset(metric.dataset_value, cursor)
    elif kind == 8 and depth < 12:
        metric.template_value.is_definition = bool(cursor.byte() & 1)
        for _ in range(cursor.byte() % 3):
            _build_metric(metric.template_value.metrics.add(), cursor, depth + 1)


def _build_dataset(dataset: pb.Payload.DataSet, cursor: Cursor) -> None:
    columns = cursor.byte() % 4
    dataset.num_of_columns = columns if cursor.byte() % 4 else cursor.number(8)
    dataset.columns.extend(cursor.text() for _ in range(columns))
    dataset.types.extend(cursor.byte() % 20 for _ in range(columns))
    for _ in range(cursor.byte() % 3):
        row = dataset.rows.add()
        for _ in range(cursor.byte() % 5):
            element = row.elements.add()
            kind = cursor.byte() % 5
            if kind == 0:
                element.int_value = cursor.number(4)
            elif kind == 1:
                element.double_value = cursor.double()
            elif kind == 2:
                element.boolean_value = bool(cursor.byte())
            elif kind == 3:
                element.string_value = cursor.text()


def _check_outcome(outcome: Outcome) -> None:
    check_frames(outcome.frames, PROTOCOLS)
    for rejected in outcome.rejected:
        check_rejected(rejected)
    timers = [effect for effect in outcome.effects if isinstance(effect, SetTimer)]
    assert len(timers) <= 1
    assert all(isinstance(effect, SetTimer | RequestRebirth) for effect in outcome.effects)


def sparkplug_seeds() -> list[bytes]:
    """What a simulated edge node says in a life; births and data with values of every datatype."""
    life = b"".join(_step_bytes(message) for message in _life())
    gap = bytes((EXPIRE, 0xFF, 0xFF, 0))
    fives = [tuple(range(first, min(first + 5, 35))) for first in range(1, 35, 5)]
    return [
        life,
        life[: len(life) // 2] + gap + life,
        life + b"\x03\0\0\x04\0\0\x05\0\0",
        *(_message("NBIRTH", _typed_birth(types)) + _message("NDATA", _typed_data(types)) for types in fives),
        _message("NBIRTH", _template_birth()) + _message("NDATA", _template_data()) * 2,
        # Built from the bytes themselves: payloads that no encoder would make.
        bytes((BUILT, 0, 0, TYPES.index(MessageType.NBIRTH), 0, 0, 7)) + bytes(range(1, 200)),
    ]


def _message(kind: str, payload: pb.Payload) -> bytes:
    return bytes((RAW, 1, 0, TYPES.index(MessageType(kind)), 0, 0)) + piece(payload.SerializeToString())


def _typed_birth(datatypes: tuple[int, ...]) -> pb.Payload:
    birth = pb.Payload(timestamp=RECEIVED_MS, seq=0)
    birth.metrics.add(name="bdSeq", datatype=pb.Int64, long_value=0, timestamp=RECEIVED_MS)
    for datatype in datatypes:
        metric = birth.metrics.add(
            name=f"m{datatype}", alias=datatype, datatype=datatype, timestamp=RECEIVED_MS
        )
        _give_value(metric, datatype)
        metric.properties.keys.append("Quality")
        metric.properties.values.add(type=3, int_value=192)
    return birth


def _typed_data(datatypes: tuple[int, ...]) -> pb.Payload:
    data = pb.Payload(timestamp=RECEIVED_MS + 1, seq=1)
    for datatype in datatypes:
        _give_value(data.metrics.add(alias=datatype, timestamp=RECEIVED_MS + 1), datatype)
        past = data.metrics.add(alias=datatype, timestamp=RECEIVED_MS - 9, is_historical=True)
        _give_value(past, datatype)
    return data


_ARRAYS = {
    **dict.fromkeys((pb.Int8Array, pb.UInt8Array), b"\x01\xff"),
    **dict.fromkeys((pb.Int16Array, pb.UInt16Array), b"\x01\x00\xff\xff"),
    **dict.fromkeys((pb.Int32Array, pb.UInt32Array), b"\x01\x00\x00\x00\xff\xff\xff\xff"),
    **dict.fromkeys((pb.Int64Array, pb.UInt64Array, pb.DateTimeArray), b"\x01" + bytes(7) + b"\xff" * 8),
    pb.FloatArray: b"\x00\x00\x80?\x00\x00\xc0\x7f",
    pb.DoubleArray: b"\x00\x00\x00\x00\x00\x00\xf0?",
    pb.BooleanArray: b"\x0c\x00\x00\x00\xaa\x50",
    pb.StringArray: b"ab\x00c\xc3\xa9\x00\x00",
}
_SHORT = frozenset({pb.Int8, pb.Int16, pb.Int32, pb.UInt8, pb.UInt16, pb.UInt32})


def _give_value(metric: pb.Payload.Metric, datatype: int) -> None:
    """The largest or an odd value of the datatype."""
    if datatype in _SHORT:
        metric.int_value = {pb.UInt8: 255, pb.UInt16: 65_535}.get(datatype, 2**32 - 1)
    elif datatype in (pb.Int64, pb.UInt64, pb.DateTime):
        metric.long_value = RECEIVED_MS if datatype == pb.DateTime else 2**64 - 1
    elif datatype == pb.Float:
        metric.float_value = 1.5
    elif datatype == pb.Double:
        metric.double_value = float("nan")
    elif datatype == pb.Boolean:
        metric.boolean_value = True
    elif datatype in (pb.String, pb.Text, pb.UUID):
        metric.string_value = "é"
    elif datatype in (pb.Bytes, pb.File):
        metric.bytes_value = b"\x00\xff"
    elif datatype == pb.DataSet:
        dataset = metric.dataset_value
        dataset.num_of_columns = 3
        dataset.columns.extend(("a", "b", "c"))
        dataset.types.extend((pb.Int8, pb.String, pb.Boolean))
        for number in range(2):
            row = dataset.rows.add()
            row.elements.add(int_value=255 - number)
            row.elements.add(string_value="x")
            row.elements.add(boolean_value=True)
    elif datatype == pb.Template:
        metric.template_value.is_definition = False
        metric.template_value.template_ref = "motor"
        metric.template_value.metrics.add(name="rpm", datatype=pb.Int32, int_value=1)
    elif datatype in _ARRAYS:
        metric.bytes_value = _ARRAYS[datatype]
    else:
        metric.is_null = True


def _template_birth() -> pb.Payload:
    birth = pb.Payload(timestamp=RECEIVED_MS, seq=0)
    definition = birth.metrics.add(name="motor", datatype=pb.Template, timestamp=RECEIVED_MS)
    definition.template_value.is_definition = True
    definition.template_value.metrics.add(name="rpm", datatype=pb.Int32, is_null=True)
    instance = birth.metrics.add(name="line/m1", alias=3, datatype=pb.Template, timestamp=RECEIVED_MS)
    instance.template_value.template_ref = "motor"
    instance.template_value.is_definition = False
    instance.template_value.metrics.add(name="rpm", datatype=pb.Int32, int_value=7)
    inner = instance.template_value.metrics.add(name="inner", datatype=pb.Template)
    inner.template_value.template_ref = "motor"
    inner.template_value.metrics.add(name="rpm", alias=4, datatype=pb.Double, double_value=1.0)
    return birth


def _template_data() -> pb.Payload:
    data = pb.Payload(timestamp=RECEIVED_MS, seq=1)
    metric = data.metrics.add(alias=3, timestamp=RECEIVED_MS, is_transient=True)
    metric.template_value.metrics.add(name="rpm", int_value=8)
    metric.template_value.metrics.add(name="inner").template_value.metrics.add(name="rpm", double_value=2.0)
    return data


def _life() -> list[Publish]:
    (node,) = build_lines(1, 2, 1, 1.0, 1.0)
    session = EdgeNodeSession("g", "a", NODE_METRICS, node.device_metrics(), None)
    death = session.connect(RECEIVED_MS)
    actions: list[Action] = [*session.subscribed(RECEIVED_MS)]
    for t_s in range(3):
        for name, machine in node.machines.items():
            actions += session.report(name, machine.values_at(float(t_s), t_s), RECEIVED_MS + t_s)
    actions += session.device_lost("mixer-01", RECEIVED_MS)
    return [*(action for action in actions if isinstance(action, Publish)), death]


def _step_bytes(message: Publish) -> bytes:
    kind = TYPES.index(MessageType(message.topic.split("/")[2]))
    device = 1 if message.topic.endswith("filler-01") else 0
    return bytes((RAW, 1, 0, kind, 0, device)) + piece(message.payload)


def sparkplug_topic_check() -> Check:
    """Topics of any text."""

    def check(data: bytes) -> None:
        topic = parse_topic(data.decode("utf-8", "replace"))
        if isinstance(topic, Rejected):
            check_rejected(topic)
        elif isinstance(topic, StateTopic):
            assert topic.host_id
            assert not set(topic.host_id) & set("+#/")
        else:
            assert isinstance(topic, Topic)
            assert (topic.device is not None) == topic.message.value.startswith("D")
            for level in (*topic.edge_node, topic.device or "x"):
                assert level
                assert not set(level) & set("+#/\x00")

    return check


def sparkplug_topic_seeds() -> list[bytes]:
    """Each kind of topic."""
    return [
        b"spBv1.0/g/NBIRTH/n",
        b"spBv1.0/g/DDATA/n/d",
        b"spBv1.0/STATE/plantwire",
        b"spBv1.0/g/NDATA/n/d",
        b"spAv1.0/g/NDATA/n",
    ]


def host_state_check() -> Check:
    """STATE payloads; what is read says the same when it is written again."""

    def check(data: bytes) -> None:
        state = parse_state(data)
        if state is not None:
            assert isinstance(state, HostState)
            assert parse_state(state_payload(state.online, state.timestamp)) == state

    return check


def host_state_seeds() -> list[bytes]:
    """A good one, and what older versions said."""
    return [
        state_payload(True, RECEIVED_MS),
        b"ONLINE",
        b'{"online": 1, "timestamp": 1e3}',
        b'{"online":true}',
    ]


def edge_node_check() -> Check:
    """What the simulated edge node receives: commands and STATE, in any order."""
    metrics = (
        MetricSpec("t", pb.Double),
        MetricSpec("u", pb.Int16, is_writable=True),
        MetricSpec("a/b", pb.String, is_writable=True),
    )
    topics = ("spBv1.0/g/NCMD/n", "spBv1.0/g/DCMD/n/d", "spBv1.0/STATE/h", "spBv1.0/g/DCMD/n/", "")

    def check(data: bytes) -> None:
        cursor = Cursor(data)
        session = EdgeNodeSession("g", "n", metrics, {"d": metrics}, "h")
        session.connect(RECEIVED_MS)
        session.subscribed(RECEIVED_MS)
        sent: list[int] = []
        while cursor.left:
            topic = cursor.choose(topics)
            built = cursor.byte() % 2
            payload = _built(cursor).SerializeToString() if built else cursor.piece()
            for action in session.receive(topic, payload, RECEIVED_MS):
                if isinstance(action, Publish) and "/NDEATH/" not in action.topic:
                    sent.append(pb.Payload.FromString(action.payload).seq)
                    if "/NBIRTH/" in action.topic:
                        assert sent[-1] == 0
                        sent.clear()
                        sent.append(0)
            assert all(b == (a + 1) % 256 for a, b in pairwise(sent))
            assert session.phase in (Phase.WAITING, Phase.ONLINE, Phase.AWAY)

    return check


def edge_node_seeds() -> list[bytes]:
    """Online, a write, a rebirth, offline."""
    online, offline = b'{"online":true,"timestamp":5}', b'{"online":false,"timestamp":6}'
    rebirth = pb.Payload(timestamp=1)
    rebirth.metrics.add(name="Node Control/Rebirth", boolean_value=True)
    write = pb.Payload(timestamp=1)
    write.metrics.add(name="u", int_value=2**32 - 5)
    steps = [(2, online), (1, write.SerializeToString()), (0, rebirth.SerializeToString()), (2, offline)]
    return [
        b"".join(bytes((topic, 0)) + piece(payload) for topic, payload in steps),
        b"\x02\0" + piece(online),
    ]
