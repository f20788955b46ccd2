"""No network but loopback, for this process: an audit hook that refuses the rest before anything is sent."""

import ipaddress
import sys

_WATCHED = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")


def allowed(host: object) -> bool:
    """Say whether ``host`` is this machine; no host at all is."""
    if isinstance(host, bytes):
        host = host.decode("idna")
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback or ipaddress.ip_address(str(host)).is_unspecified
    except ValueError:
        return False


def refuse_network() -> None:
    """From now on a look-up of, or a connection to, another machine raises ConnectionRefusedError."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _WATCHED:
        return
    where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments
    if isinstance(where, tuple) and where and not allowed(where[0]):
        raise ConnectionRefusedError(f"tests have no network: {event} {where[0]!r}")
