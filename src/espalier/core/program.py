"""What a trial starts with: its arguments and its environment, late values filled in. Never starts anything.

Late values (``${espalier.trial}``, ``${espalier.env:NAME,default}``, ``${oc.env:NAME}``) stand in a spec as
written, because they differ from trial to trial or from machine to machine; here they get their values.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from espalier.core.errors import InputError
from espalier.core.model import Data, Json, Program, Spec

PassParams = Literal["flags", "hydra", "env", "file"]

KEY_VARIABLE = "ESPALIER_KEY"
"""Marks every process of an attempt, so that what a dead worker left behind is found."""

_STEERING = ("ESPALIER_", "GIT_", "TORCHELASTIC_", "OMPI_", "PMI_", "PMIX_", "HOROVOD_")
_STEERING_NAMES = frozenset(
    (
        *("MLFLOW_RUN_ID", "MLFLOW_RUN_NAME", "MLFLOW_RUN_CONTEXT", "MLFLOW_PARENT_RUN_ID", "MLFLOW_NESTED_RUN"),
        *("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "MLFLOW_ACTIVE_MODEL_ID"),
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE"),
        *("ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TF_CONFIG", "CLUSTER_SPEC"),
        *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "OLDPWD", "_"),
    )
)
_PLAIN_HYDRA = re.compile(r"[A-Za-z_][A-Za-z0-9_/-]*(\.[A-Za-z_][A-Za-z0-9_/-]*)*\Z")
_HYDRA_WORDS = frozenset(("true", "false", "null", "nan", "inf"))
_OURS = ("espalier.", "oc.env:")
_ENV = ("espalier.env:", "oc.env:")


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one attempt sits: what it is an attempt of, and its places as the program sees them.

    ``data`` maps names to paths or uris; ``path_first`` and ``import_first`` come before what PATH and
    PYTHONPATH hold; ``hidden`` are import paths that its Python must not have; ``gpus`` are the indices that it
    may use, None where the backend does not say.
    """

    key: str
    project: str
    job: str
    line: str | None
    version: int
    trial: str
    attempt: int
    commit: str
    work_dir: str
    output_dir: str
    checkpoint_dir: str
    params_file: str
    data: Mapping[str, str] = field(default_factory=dict)
    path_first: tuple[str, ...] = ()
    import_first: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None


def late_values(seat: Seat) -> dict[str, str]:
    """Return the late values of ``seat`` by the name after ``espalier.``."""
    values = {
        "job": seat.job,
        "project": seat.project,
        "commit": seat.commit,
        "version": str(seat.version),
        "trial": seat.trial,
        "output_dir": seat.output_dir,
        "checkpoint_dir": seat.checkpoint_dir,
    }
    return values | {f"data.{name}": place for name, place in seat.data.items()}


def fill(
    text: str,
    late: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
    missing: list[str] | None = None,
) -> str:
    r"""Return ``text`` with its late values filled in; what is filled in is not read again.

    ``\${`` is an escape, as OmegaConf has it. Without ``environ`` names of the environment stay as they
    are. Raises InputError for a variable that is not set, or adds it to ``missing`` where that is given.
    """
    out: list[str] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        end = _closing(text, start)
        inner = text[start + 2 : end - 1].strip() if end else ""
        if end is None or not inner.startswith(_OURS) or (environ is None and inner.startswith(_ENV)):
            out.append(text[at : start + 2])
            at = start + 2
            continue
        slashes = len(text[at:start]) - len(text[at:start].rstrip("\\"))
        out.append(text[at : start - slashes] + "\\" * (slashes // 2))
        out.append(text[start:end] if slashes % 2 else _value(inner, late, environ or {}, missing))
        at = end
    return "".join(out) + text[at:]


def needed_names(spec: Spec, program: Program | None = None) -> tuple[str, ...]:
    """Return the environment variables that must be set for ``spec`` to start: secrets, and names without default."""
    return missing_names(spec, {}, program)


def missing_names(spec: Spec, environ: Mapping[str, str], program: Program | None = None) -> tuple[str, ...]:
    """Return those of ``needed_names`` that ``environ`` does not have, sorted."""
    starts = program or Program(spec.command, spec.env, spec.data)
    missing = [name for name in spec.secrets if name not in environ]
    texts = [*starts.command, *starts.env.values()]
    texts += [text for data in starts.data.values() for text in (data.path, data.uri, data.version) if text]
    for text in texts:
        fill(text, _Anything(), environ, missing)
    return tuple(sorted(set(missing)))


def filled_data(data: Mapping[str, Data], late: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Data]:
    """Return ``data`` with the late values of its paths and uris filled in."""
    return {
        name: Data(
            fill(item.path, late, environ) if item.path else item.path,
            item.id,
            fill(item.uri, late, environ) if item.uri else item.uri,
            item.version,
        )
        for name, item in data.items()
    }


def argv(
    program: Program,
    params: Mapping[str, Json],
    pass_params: PassParams,
    late: Mapping[str, str],
    environ: Mapping[str, str],
) -> list[str]:
    """Return the program's whole command line, parameters included where they are passed on it."""
    words = [fill(word, late, environ) for word in program.command]
    shown = {name: filled(value, late) for name, value in params.items()}
    if pass_params == "flags":
        words += [f"--{name}={_plain_text(value)}" for name, value in shown.items() if value is not None]
    elif pass_params == "hydra":
        words += [f"{name}={hydra_value(value)}" for name, value in shown.items()]
    return words


def filled(value: Json, late: Mapping[str, str]) -> Json:
    """Return a parameter's value with the late values in its strings filled in (never the environment)."""
    if isinstance(value, str):
        return fill(value, late)
    if isinstance(value, list):
        return [filled(inner, late) for inner in value]
    if isinstance(value, dict):
        return {name: filled(inner, late) for name, inner in value.items()}
    return value


def param_variables(params: Mapping[str, Json]) -> dict[str, str]:
    """Return ``PARAM_A_B`` for each parameter that is not null; raise InputError when two have one name."""
    found: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name, value in params.items():
        variable = "PARAM_" + variable_name(name)
        if variable in owner:
            raise InputError(
                f"parameters {owner[variable]!r} and {name!r} would both be {variable}",
                hint="rename one, or use pass_params: file",
            )
        owner[variable] = name
        if value is not None:
            found[variable] = _plain_text(value)
    return found


def nested(params: Mapping[str, Json]) -> dict[str, Json]:
    """Return flat dotted names as nested maps, for $ESPALIER_PARAMS."""
    tree: dict[str, Any] = {}
    for name, value in params.items():
        *above, last = name.split(".")
        node = tree
        for part in above:
            below = node.setdefault(part, {})
            if not isinstance(below, dict):
                raise InputError(f"parameter {name!r} lies below a value", hint=f"rename {part!r} or {name!r}")
            node = below
        node[last] = value
    return tree


def variables(
    spec: Spec,
    program: Program,
    params: Mapping[str, Json],
    seat: Seat,
    environ: Mapping[str, str],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return the whole environment of one attempt on one node.

    ``environ`` is the submitting command's; ``extra`` continues the MLflow run. Raises InputError for a
    secret, or a variable without default, that ``environ`` lacks.
    """
    late = late_values(seat)
    kept = {
        name: value for name, value in environ.items() if not name.startswith(_STEERING) and name not in _STEERING_NAMES
    }
    kept["PATH"] = _joined((*seat.path_first, *kept.get("PATH", "").split(":")))
    python_path = _joined((*seat.import_first, *kept.get("PYTHONPATH", "").split(":")))
    if python_path:
        kept["PYTHONPATH"] = python_path
    else:
        kept.pop("PYTHONPATH", None)
    kept["PWD"] = seat.work_dir
    # The folder may lie inside the repository: what git says there would be of the working tree, not of the commit.
    kept["GIT_CEILING_DIRECTORIES"] = posixpath.dirname(seat.work_dir)
    kept.setdefault("PYTHONUNBUFFERED", "1")  # the log shows what the program prints when it prints it
    if seat.gpus is not None:
        kept["CUDA_VISIBLE_DEVICES"] = ",".join(seat.gpus)
    kept |= {name: fill(value, late, environ) for name, value in program.env.items()}
    for name in spec.secrets:
        if name not in environ:
            raise _not_set(name)
        kept[name] = environ[name]
    kept |= extra
    kept |= {
        KEY_VARIABLE: seat.key,
        "ESPALIER_JOB": seat.job,
        "ESPALIER_LINE": seat.line or "",
        "ESPALIER_VERSION": str(seat.version),
        "ESPALIER_TRIAL": seat.trial,
        "ESPALIER_ATTEMPT": str(seat.attempt),
        "ESPALIER_COMMIT": seat.commit,
        "ESPALIER_PARAMS": seat.params_file,
        "ESPALIER_OUTPUT_DIR": seat.output_dir,
        "ESPALIER_CHECKPOINT_DIR": seat.checkpoint_dir,
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_port(seat.key)),
    }
    if seat.hidden:
        kept["ESPALIER_HIDDEN"] = ":".join(seat.hidden)
    kept |= {f"ESPALIER_DATA_{variable_name(name)}": place for name, place in seat.data.items()}
    if spec.pass_params == "env":
        kept |= param_variables({name: filled(value, late) for name, value in params.items()})
    return kept


def variable_name(name: str) -> str:
    """Return ``name`` in upper case, what is neither letter, digit nor ``_`` as ``_``."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


def hydra_value(value: Json) -> str:
    """Return ``value`` in the grammar of Hydra's overrides: it parses back to the same value."""
    if isinstance(value, str):
        if _PLAIN_HYDRA.match(value) and value.lower() not in _HYDRA_WORDS:
            return value
        # In a quoted string a backslash counts only before a quote, the closing one included.
        return "'" + re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)\Z", r"\1\1", value)) + "'"
    if isinstance(value, list):
        return "[" + ",".join(hydra_value(inner) for inner in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{hydra_value(inner)}" for name, inner in value.items()) + "}"
    return _compact(value)


class _Anything(dict[str, str]):
    """Late values of a trial that does not exist yet: each is there."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> str:
        return ""


def _value(inner: str, late: Mapping[str, str], environ: Mapping[str, str], missing: list[str] | None) -> str:
    for prefix in _ENV:
        if inner.startswith(prefix):
            name, comma, default = inner[len(prefix) :].partition(",")
            name, default = name.strip(), default.strip()
            if name in environ:
                return environ[name]
            if comma:
                quoted = len(default) > 1 and default[0] == default[-1] and default[0] in "'\""
                return default[1:-1] if quoted else fill(default, late, environ, missing)
            if missing is None:
                raise _not_set(name)
            missing.append(name)
            return ""
    name = inner.removeprefix("espalier.")
    if name not in late:
        known = ", ".join(sorted(late))
        raise InputError(f"${{{inner}}} is not known", hint=f"after 'espalier.' there is: env:NAME, {known}")
    return late[name]


def _closing(text: str, start: int) -> int | None:
    """Return the index after the brace that closes the one of ``text[start:start + 2] == "${"``."""
    depth = 0
    for at in range(start + 1, len(text)):
        if text[at] == "{":
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at + 1
    return None


def _not_set(name: str) -> InputError:
    return InputError(f"the environment variable {name} is not set", hint=f"set it and try again: export {name}=…")


def _plain_text(value: Json) -> str:
    return value if isinstance(value, str) else _compact(value)


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _joined(folders: Sequence[str]) -> str:
    return ":".join(dict.fromkeys(folder for folder in folders if folder))


def _port(key: str) -> int:
    """Return a port below the usual ephemeral range (32768); the same for every process of an attempt."""
    return 20000 + int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 12000
