"""Addresses: the one that the server listens on, and the Host headers that it answers.

A page of any site can have its own name point to 127.0.0.1 (DNS rebinding), and a browser then takes our answers for
that site's. The Host header still carries the site's name, so a host that wasn't allowed is refused.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import psutil

from hpsearch.errors import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Address:
    """Where the server listens. `given` is the person's text, `ip` its address."""

    given: str
    ip: str
    port: int
    family: socket.AddressFamily

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.ip).is_loopback

    @property
    def is_everywhere(self) -> bool:
        """All addresses of this machine: 0.0.0.0 or ::."""
        return ip_address(self.ip).is_unspecified

    @property
    def url(self) -> str:
        """For people, without a trailing slash."""
        name = socket.gethostname() if self.is_everywhere else _in_url(self.given)
        return f"http://{name}:{self.port}"


def find_address(host: str, port: int) -> Address:
    """Prefers IPv4 where a name has both.

    Raises:
        InputError: no such name.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}: {getattr(error, 'strerror', None) or error}") from None
    family, _, _, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    return Address(host, str(place[0]), port, family)


class Hosts:
    """The accepted Host headers: of the address listened on, and those of --allow-host."""

    def __init__(self, address: Address, allowed: Iterable[str] = ()) -> None:
        """Raises InputError for an allowed host that isn't valid."""
        self._with_port = {f"{name.lower()}:{address.port}" for name in _names(address)}
        self._with_any_port: set[str] = set()
        self.only_loopback = address.is_loopback
        for host in allowed:
            name, port = _parsed(host)
            if name is None:
                raise InputError(f"--allow-host {host}: expected NAME or NAME:PORT, as dash.lab or dash.lab:8443")
            self.only_loopback = self.only_loopback and name in LOOPBACK_NAMES
            if port:
                self._with_port.add(f"{name}:{port}")
            else:
                self._with_any_port.add(name)

    def know(self, host: str) -> bool:
        """Whether a request with this Host header is for this server."""
        name, port = _parsed(host)
        return name is not None and (name in self._with_any_port or f"{name}:{port or 80}" in self._with_port)


def _parsed(host: str) -> tuple[str | None, str | None]:
    found = _HOST.fullmatch(host.lower())
    return (found["name"], found["port"]) if found else (None, None)


def _names(address: Address) -> Iterator[str]:
    yield from (_in_url(address.given), _in_url(address.ip))
    if address.is_loopback or address.is_everywhere:
        yield from LOOPBACK_NAMES
    if address.is_everywhere:
        yield socket.gethostname()
        for interface in psutil.net_if_addrs().values():
            yield from (_in_url(one.address) for one in interface if one.family in (socket.AF_INET, socket.AF_INET6))


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
