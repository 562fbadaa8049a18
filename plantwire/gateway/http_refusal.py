"""A refusal on its way out of nested HTTP code.

In: a reason, a sentence, headers. Out: an exception that `http_transport` answers with.
Not here: the status of a reason (`http_transport`).
"""

from __future__ import annotations

from plantwire.gateway.http_problem import Headers
from plantwire.gateway.rejected import Reason, Rejected


class RefusalError(Exception):
    """The request is refused, with the headers that go with the answer."""

    def __init__(self, reason: Reason, detail: str, headers: Headers = ()) -> None:
        super().__init__(detail)
        self.rejected = Rejected(reason, detail)
        self.headers = headers
