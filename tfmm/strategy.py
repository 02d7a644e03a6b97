"""Which devices train the model."""

from __future__ import annotations

import tensorflow as tf

from tfmm.config import Strategy
from tfmm.errors import TfmmError


def make_strategy(kind: Strategy) -> tf.distribute.Strategy:
    """The distribution strategy of a recipe.

    "auto" takes a TPU where one answers, else several GPUs, else one GPU, else the CPU.
    "mirrored_cpu" splits the CPU into two logical devices: what runs on several GPUs can be tried
    without any.

    Raises:
      TfmmError: The recipe asks for a device that is not there.
    """
    match kind:
        case "auto":
            return _best()
        case "cpu":
            return tf.distribute.OneDeviceStrategy("/cpu:0")
        case "gpu":
            _need_gpus(1)
            return tf.distribute.OneDeviceStrategy("/gpu:0")
        case "multi_gpu":
            _need_gpus(2)
            return tf.distribute.MirroredStrategy()
        case "tpu":
            return _tpu()
        case "mirrored_cpu":
            return _two_logical_cpus()


def _best() -> tf.distribute.Strategy:
    if tf.config.list_physical_devices("TPU"):
        return _tpu()
    match len(tf.config.list_physical_devices("GPU")):
        case 0:
            return tf.distribute.OneDeviceStrategy("/cpu:0")
        case 1:
            return tf.distribute.OneDeviceStrategy("/gpu:0")
        case _:
            return tf.distribute.MirroredStrategy()


def _need_gpus(count: int) -> None:
    found = len(tf.config.list_physical_devices("GPU"))
    if found < count:
        raise TfmmError(
            f"train.strategy: expected at least {count} GPU, found {found};"
            " `make train GPU=1` installs the CUDA libraries"
        )


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise TfmmError(
            f"train.strategy: expected a TPU on this machine, found: {reason}"
        ) from error


def _two_logical_cpus() -> tf.distribute.Strategy:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < 2:
            raise TfmmError(
                "train.strategy: expected mirrored_cpu to be chosen before TensorFlow starts its"
                " devices, found them started"
            ) from error
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
