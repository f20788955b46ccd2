"""The ledger of tests keeps what the port promises."""

from collections.abc import Callable

import pytest

from espalier.testing.ledger import LedgerContract
from espalier.testing.memory_ledger import MemoryLedger, Store


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def another(self) -> Callable[[], MemoryLedger]:
        store = Store()
        return lambda: MemoryLedger("digits", store)
