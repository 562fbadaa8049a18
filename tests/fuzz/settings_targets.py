"""Files that people write: alarm rules, deadbands, what to score, codecs of LoRaWAN devices."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from plantwire.domain.anomaly.plan import ScoringPlan
from plantwire.domain.report_by_exception import is_change
from plantwire.domain.rule_book import RuleBook
from plantwire.gateway.chirpstack.codec_choice import CodecChoice, CodecFileError
from plantwire.gateway.reporting_file import parse_reporting
from plantwire.schemas.codec import RULE_CODEC
from plantwire.schemas.records import Metric
from plantwire.schemas.rule_files import Refused, parse_rules
from plantwire.schemas.scoring_files import parse_scoring
from tests.fuzz.target import Check

RULES_FOLDER = Path(__file__).parents[2] / "rules"


def rule_file_check() -> Check:
    """Rules, or problems that each name a line."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parsed = parse_rules(text, "f.yaml")
        if isinstance(parsed, Refused):
            _check_problems(parsed, text)
            return
        for rule in parsed:
            assert RULE_CODEC.decode(RULE_CODEC.encode(rule)) == rule
        RuleBook(parsed).for_device("press-1").for_metric("temperature")

    return check


def _check_problems(refused: Refused, text: str) -> None:
    lines = 2 + sum(text.count(mark) for mark in "\n\r\x85\u2028\u2029")
    assert refused.problems
    for problem in refused.problems:
        assert 1 <= problem.line <= lines
        str(problem).encode()


def rule_file_seeds() -> list[bytes]:
    """The plant's rules one by one, and what YAML has beside them."""
    plant = (RULES_FOLDER / "plant.yaml").read_text("utf-8")
    rules = plant.split("\n  - id: ")[1:]
    return [
        *(f"rules:\n  - id: {rule}".encode() for rule in rules[:6]),
        (RULES_FOLDER / "nab.yaml").read_bytes(),
        b"rules: [{id: s, devices: '*', missing: {high: {after_s: 60}, critical: {after_s: 600}}}]",
        b"rules: &a [*a]",
        b"rules: [{id: a, devices: '[', metric: '*', limits: {high: {above: .inf}}}]",
        b"--- !!python/object:os.system {}\n...\n--- 2",
        b'rules:\n- {id: "\\uD800", devices: "*", metric: t, limits: {low: {below: 1e400, deadband: -1}}}',
    ]


def reporting_file_check() -> Check:
    """Deadbands, or problems that each name a line."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parsed = parse_reporting(text, "f.yaml")
        if isinstance(parsed, Refused):
            _check_problems(parsed, text)
            return
        deadband_of = parsed.for_device("press-1")
        if deadband_of is not None and (deadband := deadband_of("temperature")) is not None:
            assert is_change(deadband, Metric("temperature", 1.0), Metric("temperature", None, "off"))

    return check


def reporting_file_seeds() -> list[bytes]:
    """Each key, and values that are too large."""
    return [
        b'reporting:\n  - {devices: "*", metric: "*", percent: 10, absolute: 0.5, max_silence_ms: 60000}\n',
        b"reporting:\n  - devices: press-*\n    metric: temperature\n",
        b'reporting: [{devices: "[", metric: "*", percent: 1e9, absolute: -1, max_silence_ms: 1e20}]',
        b"reporting: 1\nother: 2",
    ]


def scoring_file_check() -> Check:
    """Entries that make a plan, or problems that each name a line."""

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        parsed = parse_scoring(text, "f.yaml")
        if isinstance(parsed, Refused):
            _check_problems(parsed, text)
            return
        memory_of = ScoringPlan(parsed).for_device("press-1")
        if memory_of is not None:
            assert memory_of("anomaly/level/temperature") is None
            assert (memory_of("temperature") or 600) >= 600

    return check


def scoring_file_seeds() -> list[bytes]:
    """Each key, and values that are too large."""
    return [
        b'scoring:\n  - {devices: "*", metric: "*", memory: 8000}\n',
        b"scoring:\n  - devices: press-*\n    metric: temperature\n",
        b'scoring: [{devices: "[", metric: "*", memory: 1e9}]',
        b"scoring: 1\nother: 2",
    ]


def codec_file_check() -> Check:
    """Lines of codecs, or an error with the lines that are wrong."""
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(folder.cleanup)
    file = Path(folder.name) / "codecs.yaml"

    def check(data: bytes) -> None:
        file.write_bytes(data)
        try:
            choice = CodecChoice.from_file(file, {"cayenne-lpp"})
        except CodecFileError as error:
            str(error).encode()
            return
        choice.choose({}, "Milesight EM300")

    return check


def codec_file_seeds() -> list[bytes]:
    """Good lines and bad ones."""
    return [
        b"codecs:\n  - {profile: 'Milesight *', codec: cayenne-lpp}\n  - profile: '*'\n    codec: none\n",
        b"codecs:\n  - profile: [\n",
        b"codecs: {}\n",
        b"codecs: [{profile: 1, codec: x}]",
    ]
