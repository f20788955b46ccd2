"""MLflow's own UI on the configured store: how to start it, and the link to open. Starts nothing by itself.

``python -m espalier.tracking.ui`` turns into the server; an address with a password reaches it by the environment
(``MLFLOW_TRACKING_URI``), never by an argument that others can list.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from espalier.core.masking import without_credentials
from espalier.tracking.location import absolute_uri, artifact_root, is_http

# Else MLflow opens on its pages for language models. It looks for it behind the ``#`` only.
WORKFLOW = "?workflowType=machine_learning"


def ui(uri: str, repository: Path, artifacts: str | None, port: int) -> tuple[Sequence[str], str]:
    """Return the argv that serves the UI (empty for a tracking server: it has one) and the link to open."""
    full = absolute_uri(uri, repository)
    shown = without_credentials(full)
    if is_http(full):
        return (), _experiments(shown)
    place = artifacts or str(artifact_root(full, repository.absolute()))
    place = place if "://" in place else str(repository.absolute() / place)
    argv = [sys.executable, "-m", "espalier.tracking.ui", shown, place, str(port)]
    return argv, _experiments(f"http://127.0.0.1:{port}")


def run_link(uri: str, experiment_id: str, run_id: str) -> str:
    """Return the page of a run below the UI at ``uri``."""
    return f"{without_credentials(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{WORKFLOW}"


def _experiments(address: str) -> str:
    return f"{address.rstrip('/')}/#/experiments{WORKFLOW}"


def main(argv: Sequence[str]) -> None:
    """Become ``mlflow server`` on the store, the artifact folder and the port of ``argv``."""
    store, artifacts, port = argv
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    environ = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes and a gigabyte that showing runs does not need
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": given if without_credentials(given) == store else store,
    }
    environ.pop("MLFLOW_TRACKING_URI", None)
    # run artifacts lie where programs wrote them themselves: a server that proxied them would promise others
    # another place
    options = ("--no-serve-artifacts", "--default-artifact-root", artifacts, "--uvicorn-opts", "--log-level warning")
    command = (sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", port)
    os.execve(sys.executable, [*command, *options], environ)


if __name__ == "__main__":
    main(sys.argv[1:])
