"""Addresses and network interfaces of this machine."""

from __future__ import annotations

import fcntl
import socket
import struct
from pathlib import Path

from rsc.errors import ConfigError

_SIOCGIFADDR = 0x8915  # linux/sockios.h


def interface_of(address: str) -> str:
    """The interface that has an address, for libraries that want a name.

    Raises ConfigError where none has it.
    """
    for name, found in _all_addresses():
        if found == _plain(address):
            return name
    raise ConfigError(f"no network interface of this machine has the address {address}")


def address_of(interface: str) -> str:
    """An address of an interface, IPv4 before IPv6; an address passes as it is.

    Raises ConfigError for a name that no interface with an address has.
    """
    every = _all_addresses()
    if any(found == _plain(interface) for _, found in every):
        return interface
    for name, found in every:
        if name == interface:
            return found
    names = ", ".join(sorted({name for name, _ in every}))
    raise ConfigError(
        f"cluster.interface: no interface {interface!r} with an address", hint=f"there are: {names}"
    )


def address_towards(host: str) -> str:
    """The address of this machine on the way to another, by the kernel's routes; nothing is sent.

    Raises ConfigError where there is no way, or the name is not known.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(
            f"no way to node {host}: {error.strerror or error}",
            hint="name the interface of the job's network in cluster.interface",
        ) from None


def _all_addresses() -> list[tuple[str, str]]:
    """(interface, address); link-local ones of IPv6 are left out, for they need a scope."""
    found = []
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                reply = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has none
                continue
        found.append((name, socket.inet_ntoa(reply[20:24])))
    six = Path("/proc/net/if_inet6")
    for line in six.read_text().splitlines() if six.exists() else ():
        digits, _, _, scope, _, name = line.split()
        if scope != "20":
            found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))))
    return found


def _plain(address: str) -> str:
    """The one spelling of an address; a name stays as it is."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, address))
        except OSError:
            continue
    return address
