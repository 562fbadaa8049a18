"""Which addresses count as one sender. Pure.

In: a peer's address as the socket gives it. Out: a key to count by.
Guarantees: one subscriber's IPv6 addresses have one key; an IPv4 address has the same key in either notation.
Not here: what is counted (`http_gate`, `http_connections`).
"""

from __future__ import annotations

import ipaddress
from typing import Final

IPV6_SITE_BITS: Final = 64
"""What one subscriber holds of IPv6: its addresses below that are as good as one."""


def address_key(host: str) -> str:
    """The key of an address; what is none comes back as it is."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[: IPV6_SITE_BITS // 8].hex()


def is_loopback(host: str) -> bool:
    """Whether it is this machine's own address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
