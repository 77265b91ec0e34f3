"""Which commit of gatedcells is at work: what a number needs so that it can be had again."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import gatedcells

UNKNOWN = "not known (an installed package)"


def commit() -> str:
    """The commit, with ``+changes`` where files differ from it; `UNKNOWN` of a package without a history.

    A checkout says it through git; of a package installed from a repository pip wrote it down (PEP 610).
    """
    root = Path(gatedcells.__file__).parent.parent
    if (root / ".git").exists():  # and not a repository further up, which is the user's
        hash_, changed = _git(root, "rev-parse", "--short=12", "HEAD"), _git(root, "status", "--porcelain")
        if hash_ is not None and changed is not None:
            return hash_ + ("+changes" if changed else "")
    try:
        origin = distribution("gatedcells").read_text("direct_url.json")
    except PackageNotFoundError:
        origin = None
    return str(json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", UNKNOWN))


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None if there is no git, or no such thing."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
