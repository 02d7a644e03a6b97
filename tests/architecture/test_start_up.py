"""What loads with what, and what a start prints."""

import importlib
import subprocess
import sys

import pytest

import tfmm


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "module",
    [
        "tfmm",
        "tfmm.cli",
        "tfmm.client.client",
        "tfmm.config",
        "tfmm.errors",
        "tfmm.metrics",
        "tfmm.records.schema",
        "tfmm.serving.settings",
        "tfmm.workflows.ask",
    ],
)
def test_it_loads_without_tensorflow(module: str):
    done = python(
        f"import sys, {module}; heavy = {{'tensorflow', 'tf_keras'}} & set(sys.modules);"
        " assert not heavy, heavy"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_legacy_keras_is_chosen_for_tensorflow():
    done = python(
        "import tfmm, tensorflow as tf; assert tf.keras.Model.__module__.startswith('tf_keras')"
    )
    assert done.returncode == 0, done.stderr


def test_tensorflow_that_came_first_with_keras_3_is_refused_with_a_way_out():
    done = python(
        "import os, sys, types; os.environ.pop('TF_USE_LEGACY_KERAS', None);"
        " sys.modules['tensorflow'] = types.ModuleType('tensorflow'); import tfmm"
    )
    assert done.returncode == 1
    assert "import tfmm first" in done.stderr


@pytest.mark.parametrize("name", tfmm.__all__)
def test_a_public_name_resolves(name: str):
    assert getattr(tfmm, name) is not None
    assert name in dir(tfmm)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(importlib.import_module("tfmm"), "nothing")  # noqa: B009 - the lookup is the test


@pytest.mark.parametrize(
    "command",
    [["--help"], ["search", "--help"], ["score", "--help"], ["serve", "--help"], ["--version"]],
)
def test_the_command_line_starts_quietly(command: list[str]):
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "tfmm", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr == ""
