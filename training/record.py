"""How a run was started: command, code, versions and data, one line in `starts.jsonl` for each start."""

import hashlib
import json
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import distributed
from files import write_text

CODE = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "librosa", "soundfile", "soxr")  # which compute what training sees
GIT_SECONDS = 30  # for an answer of git


def write_start(folder: Path, command: str, step: int, device: torch.device, checksum: str | None) -> None:
    """Append a line to `starts.jsonl` in a run's folder.

    Changes of the code since its commit are written to `code_HASH.diff`. `checksum` is that of recordings and texts,
    `corpus.Report.checksum`, or None if they were not checked.
    """
    commit, changes, diff = _git("rev-parse", "HEAD"), _git("diff", "--no-ext-diff", "HEAD", "--", "."), None
    if changes:
        diff = f"code_{hashlib.sha256(changes.encode()).hexdigest()[:8]}.diff"
        write_text(folder / diff, changes)
    line: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": command,
        "commit": commit and commit.strip(),
        "diff": diff,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processes": distributed.world_size(),
        "data": checksum,
    }
    with (folder / "starts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _version(package: str) -> str | None:
    """Return the version of a package, or None if it was installed without metadata."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Return the output of git for the code, or None if the code is not in a repository or git is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(CODE), *arguments], capture_output=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
