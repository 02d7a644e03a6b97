"""The tensors of a SavedModel's checkpoint: read one by one, and written with some replaced.

The graph stays as it was saved. Loading a SavedModel and saving it again would lose the defaults of
its signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfmm.errors import TfmmError

_PREFIX = Path("variables", "variables")
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class Bundle:
    """The checkpoint of a version.

    Variables are named by their path from the saved object, such as `index/vectors`.

    Args:
      version: The version's folder.
    """

    def __init__(self, version: Path) -> None:
        self._path = version / _PREFIX
        reader = tf.train.load_checkpoint(str(self._path))
        self._types: dict[str, tf.DType] = dict(reader.get_variable_to_dtype_map())

    def names(self) -> Iterable[str]:
        """Variables that are there."""
        return (key.removesuffix(_SUFFIX) for key in self._types if key.endswith(_SUFFIX))

    def is_text(self, name: str) -> bool:
        """Whether a variable holds strings."""
        return bool(self._types[f"{name}{_SUFFIX}"] == tf.string)

    def tensor(self, name: str) -> tf.Tensor:
        """A variable's value.

        Raises:
          TfmmError: There is no such variable.
        """
        key = f"{name}{_SUFFIX}"
        if key not in self._types:
            raise TfmmError(f"{self._path}: expected a variable {name}, found none")
        return self._read([key])[0]

    def array(self, name: str) -> npt.NDArray[Any]:
        """The same as an array; text as bytes objects."""
        value: npt.NDArray[Any] = self.tensor(name).numpy()
        return value

    def write(self, version: Path, changed: Mapping[str, Any]) -> None:
        """Writes the checkpoint of another version, with new values for some variables.

        Raises:
          TfmmError: There is no such variable, or a value has another type than it.
        """
        new = {}
        for name, value in changed.items():
            key, tensor = f"{name}{_SUFFIX}", tf.convert_to_tensor(value)
            if self._types.get(key) != tensor.dtype:
                expected = self._types.get(key, "no variable")
                raise TfmmError(f"{name}: expected {expected!r}, received {tensor.dtype!r}")
            new[key] = tensor
        kept = [key for key in self._types if key not in new]
        tensors = dict(zip(kept, self._read(kept), strict=True)) | new
        target = version / _PREFIX
        target.parent.mkdir(parents=True, exist_ok=True)
        tf.raw_ops.SaveV2(
            prefix=str(target),
            tensor_names=list(tensors),
            shape_and_slices=np.full(len(tensors), "", object),
            tensors=list(tensors.values()),
        )

    def _read(self, keys: list[str]) -> list[tf.Tensor]:
        return list(
            tf.raw_ops.RestoreV2(
                prefix=str(self._path),
                tensor_names=keys,
                shape_and_slices=np.full(len(keys), "", object),
                dtypes=[self._types[key] for key in keys],
            )
        )


def escaped(name: str) -> str:
    """A key of a dict, such as a column, as it stands in the path of a variable."""
    return name.replace(".", "..").replace("/", ".S")
