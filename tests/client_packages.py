"""Other people's client libraries, each set in a folder of its own, and programs that use them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parent / "conformance" / "clients"
INSTALLING_S, RUNNING_S = 240, 240
# What pip and npm say when it is the way to the registry that fails, not the packages.
OUT_OF_REACH = re.compile(
    r"connection broken by|from versions: none|timed out|ProxyError"
    r"|\b(?:EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|ENOTCACHED"
    r"|ERR_SOCKET_TIMEOUT|ETIMEDOUT)\b"
)


def install(*command: str, cwd: Path) -> None:
    """Runs an installer; skips the test where its registry is out of reach."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALLING_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} took more than {INSTALLING_S} s")
    said = done.stdout + done.stderr
    for line in said.splitlines() if done.returncode else ():
        if OUT_OF_REACH.search(line):
            pytest.skip(f"the package registry is out of reach: {line.strip()}")
    assert done.returncode == 0, said


def python_with(requirements: str, folder: Path) -> Path:
    """The interpreter of a new virtual environment with one of CLIENTS' lists of packages."""
    made = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(made, check=True, capture_output=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python))
    options = (
        "--no-deps", "--no-compile", "--only-binary", ":all:", "--retries", "1", "--timeout", "20",
    )  # fmt: skip
    install(*pip, "install", *options, "-r", str(CLIENTS / requirements), cwd=folder)
    return python


def node_with(project: str, folder: Path) -> Path:
    """A copy of one of CLIENTS' projects, with the packages of its lock."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    shutil.copytree(CLIENTS / project, folder)
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
    install("npm", "ci", *options, "--fetch-timeout=20000", cwd=folder)
    return folder


def output(*command: str | Path, **environment: str) -> str:
    """What a program prints that ends well."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=RUNNING_S,
        env=os.environ | environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(*command: str | Path, **environment: str) -> Any:
    """The JSON in the last line that a program prints."""
    return json.loads(output(*command, **environment).splitlines()[-1])
