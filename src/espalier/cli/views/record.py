"""What every view of a record shares: its name, its spec, how it is treated. Never more than one version."""

from espalier.core.content import plain
from espalier.core.model import Artifacts, Json, Policy, Version
from espalier.core.names import line_name, version_name
from espalier.core.record import Record


def policy_tree(policy: Policy) -> dict[str, Json]:
    """Return a policy as it is declared."""
    return {
        "retries": policy.retries,
        "recoveries": policy.recoveries,
        "max_failures": policy.max_failures,
        "on_supersede": policy.on_supersede,
        "reuse": policy.reuse if policy.reuse == "strict" else policy.reuse == "true",
    }


def artifacts_tree(artifacts: Artifacts) -> dict[str, Json]:
    """Return artifacts as they are declared."""
    return {"include": list(artifacts.include), "exclude": list(artifacts.exclude), "max_mb": artifacts.max_mb}


def spec_tree(record: Record) -> dict[str, Json]:
    """Return a recorded spec with its defaults written out, and what is treated beside it."""
    return {
        **plain(record.spec),
        "policy": policy_tree(record.version.policy),
        "artifacts": artifacts_tree(record.version.artifacts),
    }


def name_of(version: Version) -> str:
    """Return ``digits/mlp@v3``."""
    return version_name(version.job, version.line, version.version)


def line_of(version: Version) -> str:
    """Return ``digits/mlp`` or ``digits/mlp+lr-scan``."""
    return line_name(version.job, version.line)
