"""The ledger of a repository keeps what the port promises, in every kind of repository."""

from collections.abc import Callable
from pathlib import Path

import pytest

from espalier.ledger.gitref import GitLedger
from espalier.testing.ledger import LedgerContract
from tests.repos import ENVIRON, new_repo


class TestGitLedger(LedgerContract):
    @pytest.fixture
    def another(self, tmp_path: Path) -> Callable[[], GitLedger]:
        repo = new_repo(tmp_path / "repo")
        return lambda: GitLedger(repo, "digits", ENVIRON)
