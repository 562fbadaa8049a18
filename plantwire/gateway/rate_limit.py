"""How much each client may send: a bucket that fills at a steady rate and holds a burst.

In: a client's key, an amount, a monotonic clock in seconds. Out: whether it may go on, or how long to wait.
Guarantees: over any time t a client gets no more than burst + rate * t, and the amount of one request more,
since a request is admitted while anything is left and charged in full. Keeps `clients_max` clients; the one
that was charged longest ago is forgotten first. One dictionary look-up, no lock, no timer and no thread:
whoever asks is on the path of an alarm.
Not here: whom a key stands for (`http_gate`).
"""

from __future__ import annotations

from collections import OrderedDict


class RateLimit:
    """Buckets by key. Kept as the moment at which a client has paid for all that it sent (the generic cell
    rate algorithm), so that nothing has to fill them up.
    """

    def __init__(self, per_s: float, burst: float, clients_max: int = 10_000) -> None:
        self.per_s = per_s
        self.burst = burst
        self._clients_max = clients_max
        # Ordered: a plain dict would look, at each forgetting, at all that went from its front before.
        self._paid_at_s: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """Seconds until the client has one to spend; 0 where it has."""
        paid_at_s = self._paid_at_s.get(key)
        if paid_at_s is None:
            return 0.0
        return max(0.0, paid_at_s - now_s - (self.burst - 1) / self.per_s)

    def charge(self, key: str, amount: int, now_s: float) -> None:
        """Take `amount` out of the client's bucket, into debt where there is less in it."""
        # Taken out and put in again: the first key is then the one that was charged longest ago.
        paid_at_s = self._paid_at_s.pop(key, 0.0)
        if len(self._paid_at_s) >= self._clients_max:
            self._paid_at_s.popitem(last=False)
        self._paid_at_s[key] = max(paid_at_s, now_s) + amount / self.per_s

    def __len__(self) -> int:
        return len(self._paid_at_s)
