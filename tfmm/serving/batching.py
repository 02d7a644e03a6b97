"""Merging calls that wait at the same time into one run of the session.

Nobody waits for company: whoever finds a place free takes all that is in the queue, runs it in his
own thread, and hands the place to the next in line. One client at a time is therefore served as
without batching, and under load the batches grow by themselves. `batch_timeout_micros` adds the
real server's wait.

A batch that fails is run again in halves until the calls at fault are alone, so that a bad call
fails by itself. (The real server fails the whole batch, as it does when tensors of one name have
different shapes; here these simply are different queues.)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmm.serving.batching_options import BatchingOptions
from tfmm.serving.session import Run
from tfmm.serving.status import Code, ServingError, invalid
from tfmm.serving.tensors import Array

_TIMES_UP = frozenset({Code.DEADLINE_EXCEEDED, Code.CANCELLED})


@dataclass(eq=False)
class _Task:
    run: Run
    rows: int
    is_active: Callable[[], bool]
    arrived: float = field(default_factory=time.monotonic)
    # Its thread is woken when it is done, or when it is to lead a batch.
    wake: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    done: bool = False
    outputs: list[Array] = field(default_factory=list)
    error: ServingError | None = None

    def left_ms(self) -> int:
        """Milliseconds until its deadline; 0 when it has none, less when that has passed."""
        if self.run.timeout_ms <= 0:
            return 0
        left = self.run.timeout_ms - int((time.monotonic() - self.arrived) * 1000)
        return left if left > 0 else -1


class _Queue:
    def __init__(self) -> None:
        self.tasks: deque[_Task] = deque()
        self.rows = 0


class Batcher:
    """Runs calls of one session, merged where they fit together."""

    def __init__(self, run: Callable[[Run], list[Array]], options: BatchingOptions) -> None:
        self._run_session = run
        self._options = options
        self._queues: dict[Any, _Queue] = {}
        self._leaders = 0
        self._changed = threading.Condition()

    def run(self, run: Run, is_active: Callable[[], bool] = lambda: True) -> list[Array]:
        """Runs a call, perhaps with others, and returns its own rows of the fetched arrays.

        Args:
          run: The call.
          is_active: Whether somebody still waits for the answer; asked before it is run.

        Raises:
          ServingError: The call failed, the queue is full, or its time passed while it waited.
        """
        try:
            rows = _rows(run)
        except ServingError:
            if self._options.strict:
                raise
            return self._run_session(run)
        if rows > self._options.largest:
            return self._large(run, rows, is_active)
        task = _Task(run, rows, is_active)
        key = self._key(run)
        self._enqueue(key, task)
        while True:
            if task.leads:
                self._lead(key, task)
            if task.done:
                break
            task.wake.wait()
            task.wake.clear()
        if task.error is not None:
            raise task.error
        return task.outputs

    def _large(self, run: Run, rows: int, is_active: Callable[[], bool]) -> list[Array]:
        options = self._options
        if not options.strict:
            return self._run_session(run)
        if rows > options.max_batch_size or not options.enable_large_batch_splitting:
            raise invalid(
                f"Task size {rows} is larger than maximum input batch size {options.max_batch_size}"
            )
        parts = []
        for start in range(0, rows, options.largest):
            chunk = slice(start, start + options.largest)
            feeds = {name: array[chunk] for name, array in run.feeds.items()}
            parts.append(self.run(Run(feeds, run.fetches, run.timeout_ms), is_active))
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _key(self, run: Run) -> Any:
        """What calls must have in common to be merged."""
        shapes = tuple(
            (name, array.dtype.str, array.ndim if self._pads else array.shape[1:])
            for name, array in sorted(run.feeds.items())
        )
        widths = () if self._options.strict else tuple(run.widths)
        return shapes, tuple(run.fetches), widths

    @property
    def _pads(self) -> bool:
        return self._options.pad_variable_length_inputs

    def _enqueue(self, key: Any, task: _Task) -> None:
        options = self._options
        with self._changed:
            queue = self._queues.setdefault(key, _Queue())
            if queue.rows + task.rows > options.max_enqueued_batches * options.largest:
                raise ServingError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full",
                )
            queue.tasks.append(task)
            queue.rows += task.rows
            if self._leaders < options.num_batch_threads:
                self._leaders += 1
                task.leads = True
            if options.batch_timeout_micros:
                self._changed.notify_all()

    def _lead(self, key: Any, leader: _Task) -> None:
        """Runs one batch of a queue, then leaves the place to the next in line."""
        batch = self._take(key)
        try:
            self._run_living(batch)
        except Exception as error:
            _fail(batch, ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        finally:
            self._hand_over(leader)
            for task in batch:
                task.done = True
                task.wake.set()

    def _take(self, key: Any) -> list[_Task]:
        """The oldest calls of a queue that fit into one run; none if another leader took them."""
        limit, patience = self._options.largest, self._options.batch_timeout_micros / 1e6
        with self._changed:
            queue = self._queues.get(key, _Queue())
            while queue.tasks and queue.rows < limit:
                wait = queue.tasks[0].arrived + patience - time.monotonic()
                if wait <= 0:
                    break
                self._changed.wait(wait)
            batch: list[_Task] = []
            while queue.tasks and sum(t.rows for t in batch) + queue.tasks[0].rows <= limit:
                batch.append(queue.tasks.popleft())
            queue.rows -= sum(task.rows for task in batch)
            if not queue.tasks and self._queues.get(key) is queue:
                del self._queues[key]
            return batch

    def _hand_over(self, leader: _Task) -> None:
        with self._changed:
            leader.leads = False
            waiting = [t for queue in self._queues.values() for t in queue.tasks if not t.leads]
            if not waiting:
                self._leaders -= 1
                return
            successor = min(waiting, key=lambda task: task.arrived)
            successor.leads = True
        successor.wake.set()

    def _run_living(self, batch: Sequence[_Task]) -> None:
        living = []
        for task in batch:
            if task.left_ms() < 0:
                text = "Run() timeout exceeded while waiting in batching queue"
                task.error = ServingError(Code.RESOURCE_EXHAUSTED, text)
            elif not task.is_active():
                task.error = ServingError(Code.CANCELLED, "Call was cancelled")
            else:
                living.append(task)
        if living:
            self._run_batch(living)

    def _run_batch(self, tasks: Sequence[_Task]) -> None:
        """Runs tasks as one; if that fails, as two halves, down to the tasks at fault."""
        try:
            if len(tasks) == 1 and not self._options.strict:
                (task,) = tasks
                run = Run(task.run.feeds, task.run.fetches, task.left_ms())
                task.outputs = self._run_session(run)
            else:
                self._run_merged(tasks)
        except ServingError as error:
            if len(tasks) == 1 or error.code in _TIMES_UP:
                _fail(tasks, error)
                return
            middle = len(tasks) // 2
            self._run_batch(tasks[:middle])
            self._run_batch(tasks[middle:])

    def _run_merged(self, tasks: Sequence[_Task]) -> None:
        rows = sum(task.rows for task in tasks)
        padding = next((n for n in self._options.allowed_batch_sizes if n >= rows), rows) - rows
        feeds = {
            name: _merged([task.run.feeds[name] for task in tasks], padding, pads=self._pads)
            for name in tasks[0].run.feeds
        }
        left = [task.left_ms() for task in tasks]
        timeout_ms = max(left) if all(left) else 0
        outputs = self._run_session(Run(feeds, tasks[0].run.fetches, timeout_ms))
        _check_outputs(outputs, rows + padding)
        start = 0
        for task in tasks:
            task.outputs = [array[start : start + task.rows] for array in outputs]
            start += task.rows


def _fail(tasks: Sequence[_Task], error: ServingError) -> None:
    for task in tasks:
        task.error = task.error or error


def _rows(run: Run) -> int:
    """The size of a call's batch.

    Raises:
      ServingError: Its inputs do not share one.
    """
    arrays = list(run.feeds.values())
    if not arrays:
        raise invalid("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in arrays):
        raise invalid("Batching Run() input tensors must have at least one dimension")
    if any(len(array) != len(arrays[0]) for array in arrays):
        raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return len(arrays[0])


def _merged(arrays: Sequence[Array], padding_rows: int, *, pads: bool) -> Array:
    """Arrays one below another, and the last one's first row as often as there is padding."""
    if pads:
        shape = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
        arrays = [_widened(array, tuple(int(size) for size in shape)) for array in arrays]
    if padding_rows:
        arrays = [*arrays, np.repeat(arrays[-1][:1], padding_rows, axis=0)]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _widened(array: Array, shape: tuple[int, ...]) -> Array:
    """A copy of rows of a larger shape, filled with the array's first element."""
    if array.shape[1:] == shape or not array.size:
        return array
    wide = np.full((len(array), *shape), array.flat[0], array.dtype)
    wide[tuple(slice(size) for size in array.shape)] = array
    return wide


def _check_outputs(outputs: Sequence[Array], rows: int) -> None:
    for array in outputs:
        if array.ndim == 0:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(array) != rows:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension "
                "sizes of the input tensors",
            )
