"""Every decoder holds for seeds, for what was once found, for mutations by chance, and for a guided run.

`make fuzz` runs longer. An input that it finds goes to tests/fuzz/found/<target>/<what is wrong>.bin.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.registry import BY_NAME, TARGETS
from tests.fuzz.runner import run_target
from tests.fuzz.target import Check, Target

FOUND = Path(__file__).parent / "found"
SEED = 1

NAMES = [target.name for target in TARGETS]
FOUND_INPUTS = sorted(FOUND.glob("*/*.bin"))

guided = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it is there for Linux on x86-64 only",
)


@cache
def check_of(name: str) -> Check:
    return BY_NAME[name].check()


@cache
def seeds_of(name: str) -> list[bytes]:
    return BY_NAME[name].seeds()


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with bytes changed, put in, taken out, or two seeds joined."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "insert", "delete", "cut", "join"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        elif kind == "delete":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "cut":
            del data[at:]
        elif kind == "join":
            data += draw(st.sampled_from(seeds))
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_hold(name: str) -> None:
    assert seeds_of(name)
    for data in seeds_of(name):
        check_of(name)(data)


@pytest.mark.parametrize("file", FOUND_INPUTS, ids=[f"{f.parent.name}-{f.stem}" for f in FOUND_INPUTS])
def test_what_was_found_stays_fixed(file: Path) -> None:
    check_of(file.parent.name)(file.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_mutations_hold(name: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(mutated(seeds_of(name)) | st.binary(max_size=200))
    def hold(data: bytes) -> None:
        check_of(name)(data)

    hold()


@guided
@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_guided_run_finds_nothing(target: Target, tmp_path: Path) -> None:
    verdict = run_target(target, target.short_runs, SEED, tmp_path, replays=0)
    assert verdict.problem is None
    assert verdict.executions >= target.short_runs
    # Guided by something: at least one branch of the decoder was seen to be taken.
    assert verdict.coverage > 1


@guided
@pytest.mark.parametrize(
    ("name", "runs", "problem"),
    [
        ("raises", 200_000, "KeyError: 'escaped'"),
        ("leaks", 2_000, "Python objects grew"),
        ("holds", 2_000, None),
    ],
)
def test_the_fuzzer_finds_what_is_wrong(name: str, runs: int, problem: str | None, tmp_path: Path) -> None:
    module = "tests.fuzz.broken_targets"
    verdict = run_target(Target(name, module, (module,)), runs, SEED, tmp_path)
    if problem is None:
        assert verdict.problem is None
    else:
        assert verdict.problem is not None
        assert problem in verdict.problem
