"""One rule on one metric: limits of several severities, deadband, on-delay, off-delay.

In: the state before, one value with its event time. Out: the state after, and what changed.
Guarantees: the same values in the same order give the same changes with the same times, whether a
delay is noticed by the next value or by a timer; a late value may raise an alarm but never clears one.
Not here: which rules apply (`domain.rule_book`), ids, messages and counting (`domain.detection`).

Terms and behaviour after ANSI/ISA-18.2: deadband, on-delay (the condition must hold for all of it),
off-delay (the return to normal must hold for all of it). Each limit is a condition of its own with its
own clock; the level of the rule is the most severe limit in force.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from plantwire.domain.rule_book import CompiledLimit, CompiledRule

# Ranks below every severity, so that "more severe" is "smaller" for the normal state too.
NORMAL: Final = 9

ABOVE: Final = 1
BELOW: Final = -1
NEITHER: Final = 0


class LimitPart(NamedTuple):
    """Where one limit stands; a limit that is normal with no clock running has no part."""

    severity: int
    side: int
    """ABOVE or BELOW while in force, NEITHER while not."""
    due_ms: int = 0
    """Event time at which the running delay ends and `side` becomes `due_side`; 0 when none runs."""
    due_side: int = NEITHER
    due_value: float = 0.0
    """The last value that kept the clock running, for the message."""


class LimitState(NamedTuple):
    """Where one rule stands on one metric."""

    level: int = NORMAL
    """The most severe limit in force, or NORMAL."""
    changed_ms: int = 0
    """Event time of the last change of level."""
    parts: tuple[LimitPart, ...] = ()


class LevelChange(NamedTuple):
    """The level went from one severity (or NORMAL) to another at an event time."""

    before: int
    after: int
    at_ms: int
    value: float | None
    limit: float | None
    """The threshold crossed: of the new level, or, on a return to normal, of the one left. Both are None
    where no value caused the change (`domain.missing`).
    """


def evaluate(
    compiled: CompiledRule, state: LimitState, value: float, event_ms: int, *, late: bool = False
) -> tuple[LimitState, tuple[LevelChange, ...]]:
    """Take one value in.

    A value is held until the next one: a delay that ran out before `event_ms` takes effect first, at
    the moment it ran out. `late` says that a newer value of this metric was seen before; such a value
    only makes things worse, and only where no on-delay asks for continuity.
    """
    if late:
        if compiled.rule.on_delay_ms or event_ms <= state.changed_ms:
            return state, ()
        changes: tuple[LevelChange, ...] = ()
    else:
        state, changes = expire(compiled, state, event_ms)
    parts = {part.severity: part for part in state.parts}
    moved = tuple(
        part
        for limit in compiled.limits
        if (part := _move(compiled, limit, parts.get(limit.severity), value, event_ms, late)) is not None
    )
    if moved == state.parts:
        return state, changes
    state, change = _settle(compiled, state, moved, event_ms, value)
    return state, (*changes, change) if change else changes


def expire(
    compiled: CompiledRule, state: LimitState, until_ms: int
) -> tuple[LimitState, tuple[LevelChange, ...]]:
    """Let every delay that ends by `until_ms` take effect, each at the event time at which it ended."""
    changes: list[LevelChange] = []
    while (due_ms := next_due_ms(state)) and due_ms <= until_ms:
        value = next(part.due_value for part in state.parts if part.due_ms == due_ms)
        parts = tuple(
            part if part.due_ms != due_ms else LimitPart(part.severity, part.due_side) for part in state.parts
        )
        state, change = _settle(compiled, state, tuple(p for p in parts if _worth_keeping(p)), due_ms, value)
        if change:
            changes.append(change)
    return state, tuple(changes)


def next_due_ms(state: LimitState) -> int:
    """The event time at which the next delay ends; 0 when none runs."""
    return min((part.due_ms for part in state.parts if part.due_ms), default=0)


def _move(
    compiled: CompiledRule,
    limit: CompiledLimit,
    part: LimitPart | None,
    value: float,
    event_ms: int,
    late: bool,
) -> LimitPart | None:
    part = part or LimitPart(limit.severity, NEITHER)
    side = _violated_side(limit, part.side, value)
    if (side == NEITHER) == (part.side == NEITHER):
        # No change of condition: a running clock was interrupted. A late value interrupts nothing.
        moved = part if late else LimitPart(limit.severity, side)
    elif late and side == NEITHER:
        moved = part
    else:
        delay_ms = compiled.rule.off_delay_ms if side == NEITHER else compiled.rule.on_delay_ms
        if delay_ms == 0:
            moved = LimitPart(limit.severity, side)
        else:
            due_ms = part.due_ms or event_ms + delay_ms
            moved = LimitPart(limit.severity, part.side, due_ms, side, value)
    return moved if _worth_keeping(moved) else None


def _settle(
    compiled: CompiledRule, state: LimitState, parts: tuple[LimitPart, ...], at_ms: int, value: float
) -> tuple[LimitState, LevelChange | None]:
    level = min((part.severity for part in parts if part.side), default=NORMAL)
    if level == state.level:
        return state._replace(parts=parts), None
    told, of_parts = (level, parts) if level != NORMAL else (state.level, state.parts)
    change = LevelChange(state.level, level, at_ms, value, _threshold(compiled.limits, of_parts, told))
    return LimitState(level, at_ms, parts), change


def _violated_side(limit: CompiledLimit, side: int, value: float) -> int:
    """The side on which `value` violates; the side in force holds until back by the deadband."""
    if value > limit.above - (limit.deadband if side == ABOVE else 0.0):
        return ABOVE
    if value < limit.below + (limit.deadband if side == BELOW else 0.0):
        return BELOW
    return NEITHER


def _worth_keeping(part: LimitPart) -> bool:
    return part.side != NEITHER or part.due_ms != 0


def _threshold(
    limits: tuple[CompiledLimit, ...], parts: tuple[LimitPart, ...], severity: int
) -> float | None:
    side = next((part.side for part in parts if part.severity == severity), NEITHER)
    for limit in limits:
        if limit.severity == severity and side != NEITHER:
            return limit.above if side == ABOVE else limit.below
    return None
