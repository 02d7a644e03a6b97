"""Which devices train the model."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from tfmm._quiet import no_service_lines
from tfmm.cluster import VARIABLE, meet, read_cluster, several_workers
from tfmm.config import Strategy
from tfmm.errors import TfmmError


def make_strategy(
    kind: Strategy, say: Callable[[str], None] = lambda line: None
) -> tf.distribute.Strategy:
    """The distribution strategy of a recipe.

    "auto" takes the workers of TF_CONFIG where it names several, else a TPU where one answers, else
    several GPUs, else one GPU, else the CPU. "multi_worker" takes the workers of TF_CONFIG, with
    all GPUs of each, and returns when all have started; TensorFlow must not have run an operation
    before. "mirrored_cpu" splits the CPU into two logical devices: what runs on several GPUs can be
    tried without any.

    Args:
      kind: What the recipe says.
      say: Takes a line of progress.

    Raises:
      TfmmError: The recipe asks for a device that is not there, or for workers of which one does
        not come.
    """
    match kind:
        case "auto":
            return _workers(say) if several_workers(os.environ.get(VARIABLE)) else _best()
        case "multi_worker":
            return _workers(say)
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


def _workers(say: Callable[[str], None]) -> tf.distribute.Strategy:
    cluster = read_cluster(os.environ.get(VARIABLE))
    meet(cluster, say)
    try:
        with no_service_lines():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:
        raise TfmmError(
            f"{VARIABLE}: expected {cluster.count} workers that reach one another, found:"
            f" {str(error).splitlines()[0]}"
        ) from error


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
