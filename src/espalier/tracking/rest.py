"""A Store over MLflow's REST API, for tracking servers. Repeats only what may be done twice, and never waits long."""

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from espalier.core.errors import EspalierError, RejectedError, UnavailableError
from espalier.tracking.keys import RunStatus
from espalier.tracking.store import (
    Experiment,
    LostAnswer,
    Metric,
    Run,
    batches,
    deleted_experiment,
    refused,
    run_from_json,
)

CONNECT_S = 3.0
READ_S = 20.0
PUT_S = 300.0  # an artifact's: the server passes it on before it answers
PROBE_S = 4.0  # a probe's READ_S
QUIET_S = 10.0  # after a silent server: no other call of this process waits for it so long
BYTES_MAX = 900_000  # MLflow's source names 1 MB for a batch
_PAUSES_S = (0.2, 1.0)  # before repetitions
_PAGE = 1000
_CHUNK = 1 << 20
_API = "/api/2.0/mlflow/"


def needs_client(environ: Mapping[str, str]) -> bool:
    """Return whether requests to a server go through plug-ins of the mlflow client."""
    plugged = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
    return any(environ.get(name) for name in plugged) or bool(entry_points(group="mlflow.request_header_provider"))


class RestStore:
    """A Store over one server, with MLflow's own variables for credentials."""

    def __init__(self, uri: str, shown: str, environ: Mapping[str, str]) -> None:
        parts = urlsplit(uri)
        self._shown = shown
        self._base = shown.rstrip("/")
        user = unquote(parts.username or "") or environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = unquote(parts.password or "") or environ.get("MLFLOW_TRACKING_PASSWORD", "")
        token = environ.get("MLFLOW_TRACKING_TOKEN", "")
        headers = {"User-Agent": "espalier"}
        if token and not (user and password):
            headers["Authorization"] = f"Bearer {token}"
        if environ.get("MLFLOW_WORKSPACE"):
            headers["X-MLFLOW-WORKSPACE"] = environ["MLFLOW_WORKSPACE"]
        self._http = httpx.Client(
            auth=(user, password) if user and password else None,
            headers=headers,
            verify=_trust(environ) if parts.scheme == "https" else False,
            trust_env=parts.hostname not in ("localhost", "127.0.0.1", "::1"),
        )
        self._quiet_until = 0.0

    def probe(self) -> None:
        self._quiet_until = 0.0
        self._call("experiments/search", {"max_results": 1}, read_s=PROBE_S)

    def experiment(self, name: str, location: str | None) -> Experiment:
        found = self._experiment_by_name(name)
        if found is None:
            with contextlib.suppress(LostAnswer, RejectedError):  # somebody else made it, or we did: find it
                self._call("experiments/create", _given(name=name, artifact_location=location), again=False)
            found = self._experiment_by_name(name)
        if found is None:
            self._call("experiments/create", _given(name=name, artifact_location=location), again=False)
            found = self._experiment_by_name(name) or {}
        if found.get("lifecycle_stage") == "deleted":
            raise deleted_experiment(name)
        return Experiment(str(found["experiment_id"]), found.get("artifact_location", ""))

    def search(self, experiment_id: str, query: str, limit: int) -> Sequence[Run]:
        runs: list[Run] = []
        token = ""
        while len(runs) < limit:
            asked: dict[str, Any] = {
                "experiment_ids": [experiment_id],
                "filter": query,
                "max_results": min(_PAGE, limit - len(runs)),
            }
            answer = self._call("runs/search", asked | ({"page_token": token} if token else {}))
            runs += [run_from_json(found) for found in answer.get("runs", ())]
            token = answer.get("next_page_token", "")
            if not token:
                break
        return runs

    def create(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        asked = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_ms,
            "user_id": tags.get("mlflow.user", ""),
            "tags": _pairs(tags),
        }
        return run_from_json(self._call("runs/create", asked, again=False)["run"])

    def run(self, run_id: str) -> Run | None:
        try:
            return run_from_json(self._call("runs/get", {"run_id": run_id}, method="GET")["run"])
        except _Missing:
            return None

    def write(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        for some, some_params, some_tags in _small(metrics, params, tags):
            points = [
                {
                    "key": point.key,
                    "value": "NaN" if point.value != point.value else point.value,  # a bare NaN is stored as 0
                    "timestamp": point.timestamp,
                    "step": point.step,
                }
                for point in some
            ]
            asked = {"run_id": run_id, "metrics": points, "params": _pairs(some_params), "tags": _pairs(some_tags)}
            self._call("runs/log-batch", asked)

    def update(self, run_id: str, status: RunStatus | None, end_ms: int | None, name: str | None) -> None:
        self._call("runs/update", _given(run_id=run_id, status=status, end_time=end_ms, run_name=name))

    def delete(self, run_id: str) -> None:
        self._call("runs/delete", {"run_id": run_id})

    def put(self, artifact_uri: str, path: str, file: Path) -> None:
        parts = urlsplit(artifact_uri)
        base = f"{urlsplit(self._base).scheme}://{parts.netloc}" if parts.netloc else self._base
        inside = quote(f"{parts.path.strip('/')}/{path}")
        size = file.stat().st_size
        url = f"{base}/api/2.0/mlflow-artifacts/artifacts/{inside}"
        self._send("PUT", url, again=True, file=file, headers={"Content-Length": str(size)}, read_s=PUT_S)

    def close(self) -> None:
        self._http.close()

    def __del__(self) -> None:
        self.close()

    def _experiment_by_name(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._call("experiments/get-by-name", {"experiment_name": name}, method="GET")[
                "experiment"
            ]
            return found
        except _Missing:
            return None

    def _call(
        self,
        endpoint: str,
        asked: Mapping[str, Any],
        *,
        method: str = "POST",
        again: bool = True,
        read_s: float = READ_S,
    ) -> Any:
        url = self._base + _API + endpoint
        answer = self._send(method, url, again=again, asked=asked, read_s=read_s)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            raise RejectedError(
                f"{self._shown} answers, but not as MLflow does", hint="is tracking.uri the server's address?"
            ) from error

    def _send(
        self,
        method: str,
        url: str,
        *,
        again: bool,
        asked: Mapping[str, Any] | None = None,
        file: Path | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float = READ_S,
    ) -> httpx.Response:
        """Send, repeat what is safe, raise what the caller can act on."""
        if time.monotonic() < self._quiet_until:
            raise self._unavailable("it did not answer a moment ago")
        for pause in (*_PAUSES_S, None):
            try:
                answer = self._http.request(
                    method,
                    url,
                    params=asked if method == "GET" else None,
                    json=asked if method == "POST" else None,
                    content=_chunks(file) if file else None,
                    headers=dict(headers or {}),
                    timeout=httpx.Timeout(read_s, connect=CONNECT_S),
                )
            except httpx.ConnectTimeout as error:
                self._quiet_until = time.monotonic() + QUIET_S
                raise self._unavailable("no connection") from error
            except httpx.TimeoutException as error:
                self._quiet_until = time.monotonic() + QUIET_S
                raise (self._unavailable if again else self._lost)("no answer in time") from error
            except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
                if pause is None or isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
                    raise self._unavailable(str(error)) from error
            except (httpx.HTTPError, OSError) as error:  # the connection broke after it was made
                if not again:
                    raise self._lost(str(error)) from error
                if pause is None:
                    raise self._unavailable(str(error)) from error
            else:
                if answer.status_code < 300:
                    return answer
                failure = self._failure(answer)
                if not isinstance(failure, UnavailableError) or answer.status_code in (401, 403):
                    raise failure
                if not again and answer.status_code != 429:
                    raise self._lost(failure.message) from failure
                if pause is None:
                    raise failure
            time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _failure(self, answer: httpx.Response) -> EspalierError:
        try:
            told = answer.json()
            code, text = str(told.get("error_code", "")), str(told.get("message", ""))
        except (ValueError, AttributeError):
            code, text = "", answer.text
        text = " ".join((text or answer.reason_phrase).split())[:1000]
        if code == "RESOURCE_DOES_NOT_EXIST":
            return _Missing(f"MLflow at {self._shown}: {text}", hint="was it deleted?")
        if answer.status_code in (401, 403):
            return UnavailableError(  # later: with the right credentials nothing is lost
                f"MLflow at {self._shown} refused ({answer.status_code}): {text}",
                hint="set MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN; behind a name of its own the server "
                "needs --allowed-hosts",
            )
        if answer.status_code in (408, 429) or answer.status_code >= 500 or code == "TEMPORARILY_UNAVAILABLE":
            return self._unavailable(f"{answer.status_code} {text}")
        return refused(f"{answer.status_code} {code} {text}", self._shown)

    def _unavailable(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"MLflow at {self._shown} cannot be reached: {why}",
            hint="start it, or set tracking.uri (or MLFLOW_TRACKING_URI) to one that runs",
        )

    def _lost(self, why: str) -> LostAnswer:
        return LostAnswer(f"MLflow at {self._shown} gave no answer: {why}", hint="try again")


class _Missing(RejectedError):
    """There is no such thing."""


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return what MLflow's variables say about certificates."""
    authority = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    certificate = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    try:
        context = httpx.create_ssl_context()
        if authority:
            folder = Path(authority).is_dir()
            context = ssl.create_default_context(
                cafile=None if folder else authority, capath=authority if folder else None
            )
        if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate)
    except OSError as error:
        raise RejectedError(
            f"the certificates for MLflow cannot be read: {error}",
            hint="check MLFLOW_TRACKING_SERVER_CERT_PATH and MLFLOW_TRACKING_CLIENT_CERT_PATH",
        ) from error
    return context


def _small(
    metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[Sequence[Metric], Mapping[str, str], Mapping[str, str]]]:
    """Yield batches within MLflow's counts and its megabyte."""
    for some, some_params, some_tags in batches(metrics, params, tags):
        texts = sum(len(k.encode()) + len(v.encode()) for k, v in (*some_params.items(), *some_tags.items()))
        if texts < BYTES_MAX // 2:
            yield some, some_params, some_tags
            continue
        yield some, {}, {}
        for key, value in some_params.items():
            yield (), {key: value}, {}
        for key, value in some_tags.items():
            yield (), {}, {key: value}


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
