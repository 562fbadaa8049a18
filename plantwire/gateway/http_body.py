"""Request bodies: read within bounds of bytes and time, unpacked while they arrive.

In: ASGI's messages. Out: one body's bytes, or a refusal.
Guarantees: a body is counted while it streams in, whatever its Content-Length says, before and after
unpacking, and never held beyond the limit; all bodies together are bounded too. A gzip body that would unpack
to more than the limit costs no more than unpacking the limit.
Not here: which coding a body has (`http_media`), what it means (`decode_json`, `decode_avro`).
"""

from __future__ import annotations

import asyncio
import zlib
from types import TracebackType
from typing import Final

from starlette.types import Receive

from plantwire.gateway.http_problem import Headers
from plantwire.gateway.http_refusal import RefusalError
from plantwire.gateway.rejected import Reason
from plantwire.gateway.settings import GatewaySettings

DISCARD_MAX_BYTES: Final = 64 * 1024 * 1024
_CLOSE: Final = ((b"connection", b"close"),)
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class BodyMemoryFullError(Exception):
    """All bodies together are at their bound."""


class DisconnectedError(Exception):
    """The client went away before its body was complete: there is nobody to answer."""


class BodyReader:
    """Reads bodies; knows how many bytes of them are held."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.limit_bytes = settings.gateway_body_limit_bytes
        self._timeout_s = settings.gateway_body_timeout_s
        self._memory_bytes = settings.gateway_body_memory_bytes
        self._held_bytes = 0

    def hold(self) -> Held:
        """A context that gives back, at its end, what one request's body took."""
        return Held(self)

    async def read(self, headers: dict[bytes, bytes], receive: Receive, held: Held, gzip: bool) -> bytes:
        """The body, unpacked; raises `RefusalError`, `BodyMemoryFullError` or `DisconnectedError`."""
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > self.limit_bytes):
            if headers.get(b"expect"):
                # The client is waiting for leave to send; refusing before asking spares it the upload.
                raise self._too_large(_CLOSE)
            await self._discard(receive)
        try:
            async with asyncio.timeout(self._timeout_s):
                if gzip:
                    return await self._unpacked(receive, held)
                chunk, more = await _next_chunk(receive)
                held.take(len(chunk))
                if not more and len(chunk) <= self.limit_bytes:
                    return chunk
                return await self._longer(chunk, more, receive, held)
        except TimeoutError:
            raise RefusalError(
                Reason.BODY_TIMEOUT, f"The body was not complete after {self._timeout_s:g} s.", _CLOSE
            ) from None

    async def _longer(self, first: bytes, more: bool, receive: Receive, held: Held) -> bytes:
        chunks, size_bytes = [first], len(first)
        while size_bytes <= self.limit_bytes:
            if not more:
                return b"".join(chunks)
            chunk, more = await _next_chunk(receive)
            size_bytes += len(chunk)
            held.take(len(chunk))
            chunks.append(chunk)
        chunks.clear()
        held.release()
        await self._discard(receive, more)
        raise self._too_large()

    async def _unpacked(self, receive: Receive, held: Held) -> bytes:
        unpacking = zlib.decompressobj(_GZIP_WINDOW)
        chunks: list[bytes] = []
        packed_bytes = size_bytes = 0
        more = True
        while more:
            chunk, more = await _next_chunk(receive)
            packed_bytes += len(chunk)
            if unpacking.eof and chunk:
                raise _trailing()
            try:
                # One byte more than may be: it tells a body of the limit from one beyond it.
                piece = unpacking.decompress(chunk, self.limit_bytes + 1 - size_bytes)
            except zlib.error as error:
                raise RefusalError(Reason.GZIP_CORRUPT, f"The body is not gzip: {error}.", _CLOSE) from None
            size_bytes += len(piece)
            if max(size_bytes, packed_bytes) > self.limit_bytes:
                chunks.clear()
                held.release()
                await self._discard(receive, more)
                raise self._too_large()
            if unpacking.unused_data:
                raise _trailing()
            held.take(len(piece))
            chunks.append(piece)
        if not unpacking.eof:
            raise RefusalError(Reason.GZIP_INCOMPLETE, "The body ends before its gzip stream does.")
        return b"".join(chunks)

    async def _discard(self, receive: Receive, more: bool = True) -> None:
        """Read a body that is too large to its end, keeping nothing; always raises.

        Answering before the client has finished sending would make many clients see a broken
        connection in place of the answer. Who sends on for ever is cut off.
        """
        discarded_bytes = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while more and discarded_bytes <= DISCARD_MAX_BYTES:
                    chunk, more = await _next_chunk(receive)
                    discarded_bytes += len(chunk)
        except TimeoutError:
            more = True
        raise self._too_large(_CLOSE if more else ())

    def _too_large(self, headers: Headers = ()) -> RefusalError:
        return RefusalError(
            Reason.BODY_TOO_LARGE, f"A body has at most {self.limit_bytes} bytes, unpacked.", headers
        )

    def reserve(self, size_bytes: int) -> None:
        """Count body bytes in; raises `BodyMemoryFullError`."""
        if self._held_bytes + size_bytes > self._memory_bytes:
            raise BodyMemoryFullError
        self._held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Count body bytes out."""
        self._held_bytes -= size_bytes


class Held:
    """The body bytes that one request holds."""

    __slots__ = ("_reader", "_size_bytes")

    def __init__(self, reader: BodyReader) -> None:
        self._reader = reader
        self._size_bytes = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self, size_bytes: int) -> None:
        """Count bytes as this request's."""
        self._reader.reserve(size_bytes)
        self._size_bytes += size_bytes

    def release(self) -> None:
        """Give back all that was taken."""
        self._reader.give_back(self._size_bytes)
        self._size_bytes = 0


def _trailing() -> RefusalError:
    return RefusalError(
        Reason.GZIP_TRAILING, "Something follows the body's gzip stream; it is one member.", _CLOSE
    )


async def _next_chunk(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise DisconnectedError
    return message.get("body", b""), message.get("more_body", False)
