"""States of devices in memory, and which of them changed since they were last saved.

In: what was saved; what the domain saves. Out: a `domain.keeping.DeviceKeeper` per device; the changes.
Guarantees: a state that was handed out as changed is handed out again only if it changed again. Memory is
that of the devices that have something to remember, as the domain clears what is over.
Not here: the file (`state_file`), what a state is (`domain`).
"""

from __future__ import annotations

from plantwire.light.timers import Timers


class States:
    """`saved` is every device's state; it is taken over."""

    def __init__(self, saved: dict[str, bytes], timers: Timers) -> None:
        self.packed = saved
        self.timers = timers
        self._changed: dict[str, bytes | None] = {}

    def of(self, device_id: str) -> StateKeeper:
        """The state and timers of a device."""
        return StateKeeper(self, device_id)

    def put(self, device_id: str, packed: bytes | None) -> None:
        """Remember, or, with None, forget."""
        if packed is None:
            self.packed.pop(device_id, None)
        else:
            self.packed[device_id] = packed
        self._changed[device_id] = packed

    def take_changed(self) -> dict[str, bytes | None]:
        """What changed since this was last asked; None: nothing is remembered any more."""
        changed, self._changed = self._changed, {}
        return changed


class StateKeeper:
    """A `DeviceKeeper`; see there."""

    __slots__ = ("_device_id", "_states")

    def __init__(self, states: States, device_id: str) -> None:
        self._states = states
        self._device_id = device_id

    def load(self) -> bytes | None:
        """See `DeviceKeeper`."""
        return self._states.packed.get(self._device_id)

    def save(self, packed: bytes) -> None:
        """See `DeviceKeeper`."""
        self._states.put(self._device_id, packed)

    def clear(self) -> None:
        """See `DeviceKeeper`."""
        self._states.put(self._device_id, None)

    def set_timer(self, at_ms: int) -> None:
        """See `DeviceKeeper`."""
        self._states.timers.set(self._device_id, at_ms)

    def drop_timer(self, at_ms: int) -> None:
        """See `DeviceKeeper`."""
        self._states.timers.drop(self._device_id, at_ms)
