"""``espalier ui``: MLflow's own UI on the configured store. Never writes to it."""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys

from espalier import wiring
from espalier.cli import terminal

PORT = 5000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ui``."""
    parser.description = "Start MLflow's UI on the configured store, on this machine only, until Ctrl-C."
    parser.add_argument("--port", type=int, default=0, metavar="N", help=f"default {PORT}, or a free one")


def run(arguments: argparse.Namespace) -> int:
    """Say where it is, run it until it ends."""
    argv, link = wiring.ui_command(arguments.directory, arguments.port or _free_port())
    terminal.result(link)
    if not argv:
        return 0
    terminal.Terminal().say("Ctrl-C ends the UI; nothing else")
    # a session of its own: Ctrl-C reaches us, and we end the server with all of its workers
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _end)
    server = subprocess.Popen(argv, stdout=sys.stderr, start_new_session=True)
    try:
        return 1 if server.wait() else 0
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def _free_port() -> int:
    for port in (PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return PORT
