"""What those who run work on clusters share: options as people write them, sessions of Spark."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tfmm.errors import TfmmError


def options_of(given: Sequence[str]) -> Mapping[str, str]:
    """Options written as NAME=VALUE.

    Raises:
      TfmmError: One is not.
    """
    pairs = [one.partition("=") for one in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise TfmmError(f"--runner-option: expected NAME=VALUE, received {name}")
    return {name: value for name, _, value in pairs}


def spark_session(name: str, options: Mapping[str, str]) -> tuple[Any, bool]:
    """A session of Spark, and whether nobody else had one, so that it is to be stopped.

    Args:
      name: What the session is called, if it is new.
      options: Its settings.

    Raises:
      TfmmError: PySpark or Java is missing.
    """
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TfmmError(
            "--runner spark: expected the package pyspark, found none; install tfmm[spark]"
        ) from error
    home = os.environ.get("JAVA_HOME")
    if not shutil.which(os.path.join(home, "bin", "java") if home else "java"):
        raise TfmmError("--runner spark: expected Java 8, 11 or 17 on the PATH, found none")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    is_own = SparkSession.getActiveSession() is None
    builder = SparkSession.builder.appName(name)
    for key, value in options.items():
        builder = builder.config(key, value)
    return builder.getOrCreate(), is_own


def collected(frame: Any) -> list[Any]:
    """The rows of a DataFrame of Spark.

    Raises:
      TfmmError: The job failed.
    """
    with spark_errors():
        return list(frame.collect())


@contextmanager
def spark_errors() -> Iterator[None]:
    """Makes a failed job of Spark a `TfmmError`; what a worker says of its input stays as it is."""
    from py4j.protocol import Py4JJavaError  # noqa: PLC0415 - an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise TfmmError(reason_of(str(error))) from error


def reason_of(trace: str) -> str:
    """The one line of a failed job's trace that says why."""
    lines = [line.strip() for line in trace.splitlines()]
    ours = f"{TfmmError.__module__}.{TfmmError.__name__}: "
    for line in lines:
        if line.startswith(ours):
            return line.removeprefix(ours)
    reason = ([line for line in lines if "Error: " in line] or lines)[-1]
    return f"--runner spark: expected the job to end well, found: {reason}"
