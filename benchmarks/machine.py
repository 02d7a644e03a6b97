"""What every benchmark says first."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def machine() -> str:
    """What was measured on, with what, and when."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    packages = ("tfmm", "tensorflow", "scann", "numpy")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    today = datetime.now(UTC).date().isoformat()
    return f"{model}, {os.cpu_count()} cores; {versions}; {today}"
