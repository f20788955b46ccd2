"""How commands talk to the runner of a queue: one JSON message and one answer a connection, in memory only.

The socket lies in a folder that only its owner may enter, and each side looks at who the other is. It is
reached through a descriptor of that folder, because the path of a socket may take 107 bytes at most.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = "run"
NAME = "runner.sock"
ANSWER_S = 20.0
_MESSAGE_MAX = 64 << 20


def listen(root: Path) -> socket.socket:
    """Return the listening socket of ``root``; an old one is replaced. Only the holder of the lock may call it."""
    with _folder(root) as path:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(128)
    return listener


def close(root: Path, listener: socket.socket) -> None:
    """Stop listening: whoever was not answered yet sees the connection close."""
    with _folder(root) as path, suppress(FileNotFoundError):
        os.unlink(path)
    listener.close()


def ask(root: Path, message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the runner's answer, None when there is no runner (or none that lived to answer)."""
    if not (root / FOLDER).is_dir():
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(ANSWER_S)
        try:
            with _folder(root) as path:
                client.connect(path)
            if _peer(client) != os.geteuid():
                return None
            client.sendall(json.dumps(message).encode())
            client.shutdown(socket.SHUT_WR)
            answer = _receive(client)
        except OSError:
            return None
    return dict(json.loads(answer)) if answer else None


@contextmanager
def received(listener: socket.socket) -> Iterator[tuple[dict[str, Any], socket.socket] | None]:
    """Take one message from ``listener``; None for a stranger's or a broken one."""
    try:
        client, _ = listener.accept()
    except OSError:
        yield None
        return
    with client:
        client.settimeout(ANSWER_S)
        try:
            message = json.loads(_receive(client)) if _peer(client) == os.geteuid() else None
        except (OSError, ValueError):
            message = None
        yield (message, client) if isinstance(message, dict) else None


def answer(client: socket.socket, message: Mapping[str, Any]) -> None:
    """Send the one answer; the other side may be gone."""
    with suppress(OSError):
        client.sendall(json.dumps(message).encode())


def _receive(client: socket.socket) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := client.recv(1 << 16):
        parts.append(part)
        size += len(part)
        if size > _MESSAGE_MAX:
            return b""
    return b"".join(parts)


def _peer(client: socket.socket) -> int:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


@contextmanager
def _folder(root: Path) -> Iterator[str]:
    fd = os.open(root / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)
