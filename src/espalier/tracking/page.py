"""What a run shows: its name, tags, params and pages. Pure: golden files hold it. Never asks MLflow or a clock."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from espalier.core.content import Change, canonical
from espalier.core.masking import mask
from espalier.core.model import Best, Json, Spec, State, Trial, Version, VersionState
from espalier.core.names import version_name
from espalier.core.ports import Subject
from espalier.tracking.keys import TAG_MAX, RunStatus, cut, encode_key, param_text, show

NAME_MAX = 80
_VALUE_MAX = 120  # of one value in a note; diff.md has it whole
_CHANGES_MAX = 25
_STATUS: dict[State | VersionState, RunStatus] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "succeeded": "FINISHED",
    "reused": "FINISHED",
    "failed": "FAILED",
    "lost": "FAILED",
    "cancelled": "KILLED",
}
_URL = re.compile(r"https?://[A-Za-z0-9.\-:\[\]]+(?:/[A-Za-z0-9._~%+-]+)+/?\Z")
_BLOB = re.compile(r"\A([0-9a-f]{8})[0-9a-f]{32,56}( \d{6})?\Z")
_SCP = re.compile(r"(?:[\w.-]+@)?(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/:][^:]*)\Z")
_SSH = re.compile(r"ssh://(?:[^@/]+@)?(?P<host>[A-Za-z0-9.-]+)(?::\d+)?/(?P<path>.+)\Z")


def status_of(state: State | VersionState) -> RunStatus:
    """Return MLflow's word for a state."""
    return _STATUS[state]


def is_sweep(subject: Subject) -> bool:
    """Return whether the version of ``subject`` has child runs."""
    return subject.spec.sweep is not None


def is_child(subject: Subject) -> bool:
    """Return whether ``subject`` is a trial below its version's run."""
    return subject.trial is not None and is_sweep(subject)


def run_name(subject: Subject) -> str:
    """Return ``digits/mlp@v3``, or for a child ``v3 optim.lr=0.01 hidden=64``, 80 characters at most."""
    version, trial = subject.version, subject.trial
    if trial is None or not is_child(subject):
        return _short(version_name(version.job, version.line, version.version), version.digest[:12])
    prefix = f"{version.line}@v{version.version}" if version.line else f"v{version.version}"
    values = [f"{name}={show(trial.params[name])}" for name in subject.swept if name in trial.params]
    return _short(" ".join(" ".join([prefix, *(values or [trial.id])]).split()), trial.id)


def tags(subject: Subject, *, version_run: str | None = None, parent_version_run: str | None = None) -> dict[str, str]:
    """Return the tags of the run; ``version_run`` is the run that a child lies below."""
    version, trial = subject.version, subject.trial
    found = {
        "espalier.key": subject.key,
        "espalier.ledger": subject.ledger_id,
        "espalier.job": version.job,
        "espalier.line": version.line,
        "espalier.version": str(version.version),
        "espalier.base": version.base,
        "espalier.digest": version.digest,
        "espalier.commit": version.commit,
        "espalier.backend": version.backend,
        "espalier.actor": version.actor,
        "mlflow.source.git.commit": version.commit,
        "mlflow.source.git.repoURL": web_url(subject.repository) or subject.repository,
        "mlflow.source.name": shlex.join(subject.spec.command),
        "mlflow.user": version.actor,
    }
    if version.parent is not None:
        found |= {"espalier.parent": str(version.parent), "espalier.parent_run_id": parent_version_run}
    if trial is not None:
        found |= {
            "espalier.trial": trial.id,
            "espalier.attempt": str(trial.attempt) if trial.attempt else None,
            "espalier.handle": trial.handle,
            "espalier.reused_from": trial.reused_from,
        }
    if is_child(subject):
        found["mlflow.parentRunId"] = version_run
    if not version.official:
        found["espalier.official"] = "false"
    return {key: cut(mask(value), TAG_MAX) for key, value in found.items() if value}


def params(subject: Subject) -> dict[str, str]:
    """Return a trial's hyperparameters; for a sweep's own run those that changed, a swept one as its values."""
    if subject.trial is not None:
        return {encode_key(name): param_text(value) for name, value in subject.trial.params.items()}
    found: dict[str, Json] = {}
    for prefix in ("params.", "sweep.params."):  # what is swept now wins over what was fixed
        for change in subject.changes:
            name = change.path.removeprefix(prefix)
            if change.path.startswith(prefix) and (change.new is not None or name not in found):
                found[name] = change.new
    return {encode_key(name): param_text(value) for name, value in found.items()}


def note(subject: Subject, state: State | VersionState, strays: Sequence[tuple[str, str]] = ()) -> str:
    """Return the Markdown of ``mlflow.note.content``: why the run exists, what changed, how it did.

    ``strays`` are names and ids of runs that programs opened beside theirs. 8000 characters at most.
    """
    parts = [_why(subject)]
    if not subject.version.official:
        parts.append("**Unofficial**: made from a working tree or a side line, not from the branch that is followed.")
    if subject.trial is None or not is_child(subject):
        parts += [_changed(subject, state), _results(subject, state)]
    if subject.description:
        parts.append(text(subject.description))  # after what changed: MLflow folds all but the first lines
    if subject.trial is not None:
        parts.append(_trial(subject, subject.trial, state))
    if strays:
        named = ", ".join(f"{text(name)} ({code(run_id)})" for name, run_id in strays)
        parts.append(
            f"While it ran, programs opened further runs in this experiment, which espalier leaves alone: {named}"
        )
    return cut(mask("\n\n".join(part for part in parts if part)), TAG_MAX)


def diff_page(subject: Subject) -> str:
    """Return ``espalier/diff.md``: every leaf that differs from the parent version, whole."""
    version = subject.version
    name = version_name(version.job, version.line, version.version)
    against = _parent_name(subject)
    if not against:
        return f"# {text(name)}\n\nThe first version.\n"
    lines = [f"# {text(name)} against {text(against)}", ""]
    lines += [_change_line(change, None) for change in subject.changes] or ["Nothing differs."]
    return mask("\n".join(lines) + "\n")


def spec_page(spec: Spec) -> str:
    """Return ``espalier/spec.yaml``: the spec in its canonical form, keys sorted."""
    return mask("".join(f"{line}\n" for line in _yaml(canonical(spec), "")))


def web_url(repository: str) -> str:
    """Return the https form of a repository's URL; empty when it has none."""
    url = repository.strip()
    ssh = _SSH.match(url) or (None if "://" in url else _SCP.match(url))
    if ssh:
        url = f"https://{ssh['host']}/{ssh['path']}"
    url = url.removesuffix("/").removesuffix(".git")
    return url if _URL.match(url) else ""


def commit_url(repository: str, commit: str) -> str:
    """Return the page of ``commit`` at the repository's host; empty when that is not known."""
    base = web_url(repository)
    if not base or not commit:
        return ""
    host = base.split("/")[2]
    if "gitlab" in host:
        return f"{base}/-/commit/{commit}"
    return f"{base}/{'commits' if host.endswith('bitbucket.org') else 'commit'}/{commit}"


def text(value: str) -> str:
    """Return ``value`` in one line, as Markdown that shows just these characters."""
    line = " ".join(_printable(value).split())
    line = re.sub(r"([\\`*\[\]<~]|(?<![^\W_])_|_(?![^\W_])|&(?=[#\w]+;))", r"\\\1", line)
    line = re.sub(r"(?<=[A-Za-z]):(?=//)|(?<=www)\.", lambda match: "\\" + match[0], line)  # no links of its own
    return re.sub(r"^(\d*)([#+\-=!>|.)])", r"\1\\\2", line)


def code(value: str) -> str:
    """Return ``value`` as a Markdown code span that it cannot leave."""
    line = _printable(value).replace("\n", "⏎").replace("\r", "")
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if not line.strip() or line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{space}{line or ' '}{space}{fence}"


def _why(subject: Subject) -> str:
    version = subject.version
    short = code(version.commit[:12])
    link = commit_url(subject.repository, version.commit)
    author = version.author.partition("<")[0].strip() or version.author
    shown = [f"**{text(version.subject) or 'no subject'}**", text(author), f"[{short}]({link})" if link else short]
    return " · ".join(part for part in shown if part)


def _parent_name(subject: Subject) -> str:
    parent = subject.parent
    return version_name(parent.job, parent.line, parent.version) if parent else ""


def _changed(subject: Subject, state: State | VersionState) -> str:
    against = _parent_name(subject)
    if not against:
        return "The first version: nothing to compare with."
    if not subject.changes:
        return f"Nothing changed since {text(against)}."
    lines = [f"Changed since {text(against)}:", ""]
    lines += [_change_line(change, _VALUE_MAX) for change in subject.changes[:_CHANGES_MAX]]
    more = len(subject.changes) - _CHANGES_MAX
    if more > 0:
        lines.append(f"- … {more} more in {code('espalier/diff.md')}")
    return "\n".join(lines)


def _change_line(change: Change, limit: int | None) -> str:
    old, new = (_leaf(_short_blob(change.path, value) if limit else value, limit) for value in (change.old, change.new))
    where = f" ({text(change.origin)})" if change.origin else ""
    return f"- {code(change.path)}: {old} → {new}{where}"


def _short_blob(path: str, value: Json) -> Json:
    """Return the git id of a file of ``code`` as people know it from ``git diff``; anything else as it is."""
    return _BLOB.sub(r"\1\2", value) if path.startswith("code.") and isinstance(value, str) else value


def _leaf(value: Json, limit: int | None) -> str:
    if value is None:
        return "none"
    shown = show(value)
    return code(cut(shown, limit) if limit else shown)


def _results(subject: Subject, state: State | VersionState) -> str:
    version, parent = subject.version, subject.parent
    counts = version.counts
    lines = []
    if is_sweep(subject) and counts.total:
        ended = [f"{getattr(counts, name)} {name}" for name in _STATUS if getattr(counts, name)]
        lines.append(f"{counts.total} trials: {', '.join(ended)}.")
    if version.best is not None:
        lines.append(f"Best {_best(version.best)}{_against(version, version.best, parent)}")
    elif parent is not None and parent.best is not None and state != "running" and state != "queued":
        lines.append(f"No result to compare: {text(_parent_name(subject))} had {_best(parent.best)}.")
    return "  \n".join(lines)


def _best(best: Best) -> str:
    return f"{code(best.metric)} **{best.value:.6g}** (trial {code(best.trial[:8])})"


def _against(version: Version, best: Best, parent: Version | None) -> str:
    if parent is None:
        return "."
    name = text(version_name(parent.job, parent.line, parent.version))
    if parent.best is None:
        return f"; {name} ({parent.state}) has no result to compare with."
    if parent.best.metric != best.metric:
        return f"; {name} had {_best(parent.best)}: another objective, not to be compared."
    delta = best.value - parent.best.value
    goal = version.objective.goal if version.objective else "maximize"
    better = delta > 0 if goal == "maximize" else delta < 0
    word = "the same" if delta == 0 else f"{'better' if better else 'worse'} by {abs(delta):.4g}"
    return f"; {name} had {parent.best.value:.6g}: {word} ({goal})."


def _trial(subject: Subject, trial: Trial, state: State | VersionState) -> str:
    lines = []
    if is_child(subject):
        version = subject.version
        name = version_name(version.job, version.line, version.version)
        attempt = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
        lines.append(f"Trial {code(trial.id)} of {text(name)}{attempt}.")
    if trial.reused_from:
        lines.append(f"Taken over from {text(trial.reused_from)}: it was not run again.")
    if state in ("failed", "lost", "cancelled"):
        why = f"exit code {trial.exit_code}" if trial.exit_code is not None else ""
        lines.append(
            f"{state.capitalize()}: {text(', '.join(part for part in (why, trial.message or '') if part) or state)}"
        )
    return "  \n".join(lines)


def _short(name: str, ending: str) -> str:
    if len(name) <= NAME_MAX:
        return name
    return f"{name[: NAME_MAX - len(ending) - 2]}… {ending}"


def _printable(value: str) -> str:
    return "".join(character if character.isprintable() or character in "\n\r\t" else "�" for character in value)


_PLAIN = re.compile(r"[A-Za-z_/][\w./@+-]*\Z", re.ASCII)
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _yaml(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key in sorted(tree):
        value, name = tree[key], _scalar(key)
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_yaml(value, indent + "  ")]
        elif isinstance(value, list) and value:
            lines.append(f"{indent}{name}:")
            lines += [f"{indent}- {_scalar(inner)}" for inner in value]
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}")
    return lines


def _scalar(value: Json) -> str:
    """Return ``value`` as YAML that YAML 1.1 and 1.2 read alike."""
    if isinstance(value, str) and _PLAIN.match(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, float) and "e" in (written := repr(value)) and "." not in written:
        return written.replace("e", ".0e")
    if isinstance(value, list):
        return f"[{', '.join(_scalar(inner) for inner in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(value[key])}" for key in sorted(value)) + "}"
    written = show(value) if not isinstance(value, str) else '"' + _quoted(value) + '"'
    return written


def _quoted(value: str) -> str:
    """Return ``value`` for YAML's double quotes."""
    named = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join(
        named.get(character) or (character if character.isprintable() else f"\\U{ord(character):08x}")
        for character in value
    )
