"""Published models on disk: version folders, atomic publication, loading, and the op check.

A model is a folder `saved_models/<name>/` of versions `1`, `2`, ... as TensorFlow Serving reads
them. A version is built beside them in a folder whose name is no number, so that no server looks
at it, written through to the disk, and renamed in one step. A kill at any moment leaves either no
new version or a whole one; what it leaves of the folder beside is removed by the next export.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2

from tfmm.contract import is_of_history, padded
from tfmm.errors import TfmmError, sentence_of

STOCK_OPS = frozenset(
    resources.files("tfmm").joinpath("stock_ops_2.16.txt").read_text(encoding="utf-8").split()
)
MANIFEST = Path("assets.extra", "manifest.json")
WARMUP_REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")
"""Where servers look for PredictionLogs to answer before they serve a version."""
_MODEL = "saved_model.pb"
_STAGING = ".staging-"
_SCANN, _TEXT = "scann", "tensorflow_text"
Answer = dict[str, npt.NDArray[Any]]


def versions(model: Path) -> list[int]:
    """Published versions of a model, rising."""
    if not model.is_dir():
        return []
    names = [path.name for path in model.iterdir() if (path / _MODEL).is_file()]
    return sorted(int(name) for name in names if name.isdecimal())


def latest_version(path: Path) -> Path:
    """The version folder that a path means: itself, or the newest one of a model's folder.

    Raises:
      TfmmError: There is none.
    """
    folder = Path(path)
    if (folder / _MODEL).is_file():
        return folder
    numbers = versions(folder)
    if not numbers:
        raise TfmmError(
            f"{folder}: expected a SavedModel or a folder of its versions, found neither"
        )
    return folder / str(numbers[-1])


@contextlib.contextmanager
def staging(model: Path) -> Iterator[Path]:
    """A new empty folder beside the versions of a model, removed at the end unless published.

    The folder is locked while its process lives; those of dead processes are removed first.
    """
    model.mkdir(parents=True, exist_ok=True)
    with _locked(model):
        _remove_stale(model)
        folder = model / f"{_STAGING}{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir()
        mine = os.open(folder, os.O_RDONLY)
        fcntl.flock(mine, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mine)


def publish(staged: Path, *, newest: int | None = None) -> Path:
    """Renames a folder of `staging` to the model's next version, and returns that.

    Everything is on the disk before the name is.

    Args:
      staged: The folder.
      newest: What has to be the newest version still; None for any.

    Raises:
      TfmmError: There is another by now, whose changes would be lost.
    """
    for path in sorted(staged.rglob("*")):
        _flush(path)
    _flush(staged)
    model = staged.parent
    with _locked(model):
        taken = [int(path.name) for path in model.iterdir() if path.name.isdecimal()]
        if newest is not None and max(taken, default=0) != newest:
            raise TfmmError(
                f"{model}: expected version {newest} to be the newest still, found {max(taken)}"
            )
        version = model / str(max(taken, default=0) + 1)
        staged.rename(version)
        _flush(model)
    return version


def write_manifest(version: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a version's manifest; JSON without NaN."""
    path = version / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_manifest(version: Path) -> dict[str, Any]:
    """A version's manifest; empty for a SavedModel that tfmm did not write."""
    path = version / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TfmmError(f"{path}: expected JSON, found: {error}") from error
    return dict(manifest)


def ops_of(path: Path) -> set[str]:
    """Names of the ops in a SavedModel's graph and function library."""
    graph = _graph_of(latest_version(path)).graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(n for function in graph.library.function for n in function.node_def)]
    return {node.op for node in nodes} - functions


def missing_from_stock(path: Path) -> list[str]:
    """What a SavedModel needs and a stock TensorFlow Serving 2.16 does not have.

    Names of ops, and `jit_compile:<function>` for functions that insist on XLA.
    """
    graph = _graph_of(latest_version(path)).graph_def
    compiled = [
        f"jit_compile:{function.signature.name}"
        for function in graph.library.function
        if function.attr["_XlaMustCompile"].b
    ]
    return sorted(ops_of(path) - STOCK_OPS) + sorted(compiled)


@dataclass(frozen=True)
class InputSpec:
    """One input of a loaded signature.

    Attributes:
      dtype: Its TensorFlow type.
      shape: Its shape, None for the batch.
      default: What is used when the input is not given, or None where it must be.
    """

    dtype: tf.DType
    shape: tuple[int | None, ...]
    default: npt.NDArray[Any] | None


class Signature:
    """A signature that fills in absent inputs as TensorFlow Serving does.

    Call it with any of its inputs by name. A scalar is one row; for an input with several values a
    row, a flat list is one row, and rows that are too short are padded as a client must: `history`
    and its companions on the left (of too long ones the newest values are kept), others on the
    right. It returns a dict of NumPy arrays.
    """

    def __init__(self, name: str, function: Any, inputs: Mapping[str, InputSpec]) -> None:
        self.name = name
        self.inputs = dict(inputs)
        self._function = function
        defaults = {name: spec.default for name, spec in inputs.items()}
        self._defaults = {n: tf.constant(v) for n, v in defaults.items() if v is not None}

    def __call__(self, **given: Any) -> Answer:
        """Runs the signature; None counts as not given.

        Raises:
          TfmmError: An input is unknown, missing, or refused by the model.
        """
        return {name: value.numpy() for name, value in self.tensors(**given).items()}

    def tensors(self, **given: Any) -> dict[str, tf.Tensor]:
        """The same without the copy into NumPy, which takes an object for each string."""
        for name in given:
            if name not in self.inputs:
                known = ", ".join(sorted(self.inputs))
                raise TfmmError(f"{self.name}: expected inputs among {known}, received {name}")
        fed = dict(self._defaults)
        for name, spec in self.inputs.items():
            if given.get(name) is not None:
                fed[name] = _tensor(name, given[name], spec)
            elif name not in fed:
                raise TfmmError(f"{self.name}: expected input {name}, which has no default")
        try:
            return dict(self._function(**fed))
        except tf.errors.InvalidArgumentError as error:
            raise TfmmError(sentence_of(str(error.message))) from error


class LoadedModel:
    """A SavedModel in this process.

    Attributes:
      path: The version folder.
      manifest: Its manifest; empty if tfmm did not write the model.
      signatures: `Signature` by name.
      numbered: Likewise those whose hits are rows of `columns`; see `retriever`.
      columns: What hits show, variables [N] by name; empty if tfmm did not write the model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = read_manifest(path)
        specs = signature_specs(path)
        # The functions live as long as the object that they were loaded with.
        self._loaded = tf.saved_model.load(str(path))
        kept = getattr(self._loaded, "numbered", {})
        numbered = {name: function.concrete_functions[0] for name, function in kept.items()}
        self.columns: Mapping[str, tf.Variable] = getattr(self._loaded, "columns", {})
        self.signatures, self.numbered = (
            {name: Signature(name, each, specs[name]) for name, each in functions.items()}
            for functions in (self._loaded.signatures, numbered)
        )


def load_model(path: str | Path) -> LoadedModel:
    """Loads a version, or the newest version of a model's folder.

    Raises:
      TfmmError: There is no SavedModel, or the package of one of its ops cannot be imported.
    """
    version = latest_version(Path(path))
    register_ops(version)
    try:
        return LoadedModel(version)
    except (OSError, tf.errors.OpError) as error:
        raise TfmmError(f"{version}: expected a whole SavedModel, received: {error}") from error


def register_ops(version: Path) -> None:
    """Imports the packages whose ops a model holds; core TensorFlow's are there already.

    Raises:
      TfmmError: One of them cannot be imported, or there is no SavedModel.
    """
    foreign = [op for op in ops_of(version) if not hasattr(tf.raw_ops, op)]
    packages = {_SCANN if op.startswith("Scann>") else _TEXT for op in foreign}
    for package in sorted(packages):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise TfmmError(
                f"{version}: expected the package {package}, whose ops the model holds: {error}"
            ) from error


def register_ops_beforehand() -> None:
    """Imports the packages of ops that are installed, before anything runs.

    TensorFlow and the system's loader wait for each other for ever, now and then, when a library of
    ops is loaded while another thread runs a model.
    """
    for package in (_SCANN, _TEXT):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)


def _graph_of(version: Path) -> Any:
    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString((version / _MODEL).read_bytes())
        return content.meta_graphs[0]
    except (OSError, IndexError, DecodeError) as error:
        raise TfmmError(f"{version / _MODEL}: expected a SavedModel, found: {error}") from error


def signature_specs(path: Path) -> dict[str, dict[str, InputSpec]]:
    """Inputs of each signature of a SavedModel, which is not loaded for it."""
    definitions = _graph_of(latest_version(path)).signature_def
    return {
        name: _inputs(definition)
        for name, definition in sorted(definitions.items())
        if not name.startswith("__")
    }


def output_types(path: Path) -> dict[str, dict[str, tf.DType]]:
    """Types of each signature's outputs, of a SavedModel which is not loaded for it."""
    definitions = _graph_of(latest_version(path)).signature_def
    return {
        name: {key: tf.as_dtype(info.dtype) for key, info in sorted(one.outputs.items())}
        for name, one in sorted(definitions.items())
        if not name.startswith("__")
    }


def identity_of(version: Path) -> dict[str, Any]:
    """Which model a version folder holds: its names, and a digest of its graph and variables.

    The digest is that of the graph, the manifest and the table of the variables' checksums, so that
    it costs nothing to take of a large model.
    """
    digest = hashlib.sha256()
    for part in (_MODEL, MANIFEST, Path("variables", "variables.index")):
        content = (version / part).read_bytes() if (version / part).is_file() else b""
        digest.update(len(content).to_bytes(8, "little") + content)
    whole = version.resolve()
    return {"name": whole.parent.name, "version": whole.name, "digest": digest.hexdigest()}


def _inputs(definition: Any) -> dict[str, InputSpec]:
    specs = {}
    for name, info in definition.inputs.items():
        shape = tuple(None if d.size < 0 else int(d.size) for d in info.tensor_shape.dim)
        default = definition.defaults.get(name) if name in definition.defaults else None
        value = None if default is None else tf.make_ndarray(default)
        specs[name] = InputSpec(tf.as_dtype(info.dtype), shape, value)
    return specs


def _tensor(name: str, value: Any, spec: InputSpec) -> tf.Tensor:
    width = spec.shape[1] if len(spec.shape) == 2 else None
    rows = value
    if not isinstance(value, tf.Tensor):
        rows = [value] if _is_scalar(value) else value
        if width is not None:
            rows = [_padded(name, row, width, spec) for row in _as_rows(rows)]
    try:
        return tf.constant(rows, dtype=spec.dtype)
    except (TypeError, ValueError) as error:
        shape = ", ".join("B" if size is None else str(size) for size in spec.shape)
        raise TfmmError(
            f"{name}: expected {spec.dtype.name} [{shape}], received {value!r:.80}"
        ) from error


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | tuple) and np.ndim(value) == 0


def _as_rows(values: Any) -> list[Any]:
    flat = len(values) == 0 or _is_scalar(values[0])
    return [values] if flat else list(values)


def _padded(name: str, row: Any, width: int, spec: InputSpec) -> list[Any]:
    values = [row] if _is_scalar(row) else list(row)
    if len(values) > width and not is_of_history(name):
        raise TfmmError(f"{name}: expected at most {width} values a row, received {len(values)}")
    blank = "" if spec.default is None else spec.default.flat[0]
    return padded(name, values, width, blank)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(model: Path) -> None:
    for folder in model.glob(f"{_STAGING}*"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        except BlockingIOError:
            continue  # its process lives
        finally:
            os.close(descriptor)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
