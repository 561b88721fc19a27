"""Decides which IP addresses the server may connect to on behalf of a user. Pure.

A kubeconfig names a server, and the answer of whatever listens there may reach the user: without a rule he could ask
services that trust the server's own machine or network (server-side request forgery). Private networks are where
clusters live, so they are open. The rule is asked about the address that is being connected to
(`ClusterAccess.refuse_address` of `dataplane.kube`), so a name that resolves to something else a moment later gains
nothing.
"""

import ipaddress
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SERVICES_OF_CLOUDS: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "168.63.129.16",  # Azure's platform: learn.microsoft.com, "What is IP address 168.63.129.16?"
        "fd00:ec2::254",  # AWS instance metadata over IPv6; elsewhere it is link-local
        "100.100.100.200",  # Alibaba Cloud instance metadata
        "192.0.0.192",  # Oracle Cloud instance metadata
    )
)
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")  # RFC 1122: Linux connects 0.0.0.0 to itself
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))  # RFC 6052, 8215
_COMPATIBLE: Final = ipaddress.ip_network("::/96")  # RFC 4291 2.5.5.1: deprecated, yet some stacks still route it


def refused_address(address: str, *, allow_loopback: bool) -> str:
    """Return why *address* (an IP address as text, possibly with a zone) may not be connected to, "" where it may.

    Link-local, loopback, unspecified, multicast, broadcast and reserved addresses are refused, and the metadata
    services of clouds; also where they stand inside an IPv6 address (mapped, compatible, 6to4, Teredo, NAT64). With
    *allow_loopback* loopback is open, and nothing else.
    """
    try:
        outer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address!r} is no IP address"
    for one in (outer, *_inside(outer)):
        kind = _kind(one)
        if kind == "loopback" and allow_loopback:
            continue
        if kind:
            return f"{address} is a {kind} address" if one is outer else f"{address} stands for {one}, a {kind} address"
    return ""


def _kind(address: _Address) -> str:
    if address.is_loopback:
        return "loopback"
    if address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return "unspecified"
    if address.is_link_local or (address.version == 6 and address.is_site_local):
        return "link-local"
    if address.is_multicast:
        return "multicast"
    if address in _SERVICES_OF_CLOUDS:
        return "cloud metadata"
    if address.version == 4 and address.is_reserved:  # 240.0.0.0/4 with broadcast; most of IPv6 counts as reserved
        return "reserved"
    return ""


def _inside(address: _Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address leads to."""
    if address.version == 4:
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 1):
        found.append(low)
    return [one for one in found if one is not None]
