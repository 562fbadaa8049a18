"""Verified tokens, remembered: a device sends the same one with every request.

In: a compact JWT. Out: its `Claims`, or `TokenError`.
Guarantees: an expired token is never taken, remembered or not; at most `size_max` are kept, the oldest
goes first; a refused token is not remembered, so guessing fills nothing.
Not here: the verification itself (`platform.tokens`).
"""

from __future__ import annotations

from plantwire.platform.tokens import Claims, TokenAuthority, TokenError

EXPIRED = "token expired"


class TokenCache:
    """Remembers what `authority` verified."""

    def __init__(self, authority: TokenAuthority, size_max: int = 4096) -> None:
        self._authority = authority
        self._size_max = size_max
        self._verified: dict[str, Claims] = {}

    def knows(self, token: str) -> bool:
        """Whether `token` was verified before; it may have expired since."""
        return token in self._verified

    def verify(self, token: str, now_s: float) -> Claims:
        """The claims of `token` at `now_s` (seconds since the epoch); raises `TokenError`."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._verify_new(token)
            if len(self._verified) >= self._size_max:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = claims
        if claims.expires_at_s <= now_s:
            self._verified.pop(token, None)
            raise TokenError(EXPIRED)
        return claims

    def _verify_new(self, token: str) -> Claims:
        try:
            return self._authority.verify(token)
        except RecursionError:  # a token whose header or body is nested very deeply
            raise TokenError("token not valid: nested too deeply") from None
