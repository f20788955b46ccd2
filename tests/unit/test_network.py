import socket

import pytest


def test_another_machine_cannot_be_reached() -> None:
    with pytest.raises(ConnectionRefusedError, match="no network"):
        socket.getaddrinfo("example.invalid", 80)
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError, match="no network"):
        caller.connect(("192.0.2.1", 80))


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert socket.getaddrinfo("localhost", 80)
