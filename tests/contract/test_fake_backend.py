"""The backend in memory keeps the contract."""

import pytest

from espalier.core.ports import Backend, Report
from espalier.testing.backend import BackendContract
from espalier.testing.fakes import FakeBackend


class TestFakeBackend(BackendContract):
    @pytest.fixture
    def backend(self) -> FakeBackend:
        return FakeBackend()

    def ended(self, backend: Backend, handle: str) -> Report:
        assert isinstance(backend, FakeBackend)
        backend.finish(handle)
        return backend.status([handle])[handle]

    def running(self, backend: Backend, handle: str) -> Report:
        assert isinstance(backend, FakeBackend)
        backend.start(handle)
        return backend.status([handle])[handle]
