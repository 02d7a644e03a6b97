"""Which batches each process makes."""

from dataclasses import dataclass

import pytest

from tfmm.data.share import ALONE, Share


@dataclass
class Context:
    """As much of `tf.distribute.InputContext` as a share reads."""

    num_input_pipelines: int
    input_pipeline_id: int
    num_replicas_in_sync: int


@pytest.mark.parametrize(("processes", "each"), [(1, 1), (1, 4), (2, 1), (3, 1), (2, 2), (4, 8)])
def test_the_processes_of_a_step_make_its_batches_once_in_the_order_of_the_replicas(
    processes: int, each: int
):
    shares = [Share.of(Context(processes, at, processes * each)) for at in range(processes)]
    for step in range(5):
        made = [
            share.batch(position)
            for share in shares
            for position in range(step * each, (step + 1) * each)
        ]
        replicas = processes * each
        assert made == list(range(step * replicas, (step + 1) * replicas))


def test_alone_a_position_is_a_batch():
    assert [ALONE.batch(position) for position in range(4)] == [0, 1, 2, 3]


def test_the_second_of_two_workers_with_two_devices():
    share = Share.of(Context(2, 1, 4))
    assert [share.batch(position) for position in range(4)] == [2, 3, 6, 7]
