"""Merging calls that wait at the same time into one run of the session.

Nobody waits for company: a thread that is free takes all that is in a queue and runs it. One client
at a time is therefore served as without batching, and under load the batches grow by themselves.
`batch_timeout_micros` adds the real server's wait.

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
class Task:
    """A call that waits to be merged, and then what came of it.

    Attributes:
      run: The call.
      rows: The size of its batch.
      is_active: Whether somebody still waits for the answer; asked before it is run.
      done: Called with the task by the thread that has run it.
      outputs: Its own rows of the fetched arrays.
      error: Why there are none.
    """

    run: Run
    rows: int
    is_active: Callable[[], bool]
    done: Callable[[Task], None]
    arrived: float = field(default_factory=time.monotonic)
    outputs: list[Array] = field(default_factory=list)
    error: ServingError | None = None

    def result(self) -> list[Array]:
        """The outputs.

        Raises:
          ServingError: There are none.
        """
        if self.error is not None:
            raise self.error
        return self.outputs

    def left_ms(self) -> int:
        """Milliseconds until its deadline; 0 when it has none, less when that has passed."""
        if self.run.timeout_ms <= 0:
            return 0
        left = self.run.timeout_ms - int((time.monotonic() - self.arrived) * 1000)
        return left if left > 0 else -1


class _Queue:
    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        self.rows = 0
        # Whether a thread has it in hand, and waits for company.
        self.taken = False


class Batcher:
    """Runs calls of one session, merged where they fit together, in threads of its own."""

    def __init__(self, run: Callable[[Run], list[Array]], options: BatchingOptions) -> None:
        self._run_session = run
        self._options = options
        self._queues: dict[Any, _Queue] = {}
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False
        self._changed = threading.Condition()

    def run(self, run: Run, is_active: Callable[[], bool] = lambda: True) -> list[Array]:
        """Runs a call, perhaps with others, and returns its own rows of the fetched arrays.

        Args:
          run: The call.
          is_active: Whether somebody still waits for the answer; asked before it is run.

        Raises:
          ServingError: The call failed, the queue is full, or its time passed while it waited.
        """
        finished = threading.Event()
        task = self.submit(run, is_active, lambda _: finished.set())
        if task is None:
            return self._alone(run, is_active)
        finished.wait()
        return task.result()

    def submit(
        self, run: Run, is_active: Callable[[], bool], done: Callable[[Task], None]
    ) -> Task | None:
        """Leaves a call to be run, perhaps with others; `done` is called when it has been.

        Returns:
          Its task, or None for a call that cannot be merged with others, which `run` runs.

        Raises:
          ServingError: The call is not as it should be, or the queue is full; `done` is not called.
        """
        try:
            rows = _rows(run)
        except ServingError:
            if self._options.strict:
                raise
            return None
        if rows > self._options.largest:
            return None
        task = Task(run, rows, is_active, done)
        self._enqueue(self._key(run), task)
        return task

    def close(self) -> None:
        """Ends the threads; nobody may be waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _alone(self, run: Run, is_active: Callable[[], bool]) -> list[Array]:
        options = self._options
        if not options.strict:
            return self._run_session(run)
        rows = _rows(run)
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
            for name, array in run.feeds.items()
        )
        widths = () if self._options.strict else run.widths
        return shapes, tuple(run.fetches), widths

    @property
    def _pads(self) -> bool:
        return self._options.pad_variable_length_inputs

    def _enqueue(self, key: Any, task: Task) -> None:
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
            waiting = sum(not queue.taken for queue in self._queues.values())
            if waiting > self._idle and len(self._threads) < options.num_batch_threads:
                thread = threading.Thread(target=self._work, name="batch", daemon=True)
                self._threads.append(thread)
                thread.start()
            elif options.batch_timeout_micros:
                self._changed.notify_all()
            else:
                self._changed.notify()

    def _work(self) -> None:
        while batch := self._take():
            try:
                self._run_living(batch)
            except Exception as error:
                _fail(batch, ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))
            for task in batch:
                task.done(task)

    def _take(self) -> list[Task]:
        """The oldest calls that fit into one run; none at the end."""
        limit, patience = self._options.largest, self._options.batch_timeout_micros / 1e6
        with self._changed:
            key = self._longest_waiting()
            if key is None:
                return []
            queue = self._queues[key]
            queue.taken = True
            while queue.rows < limit:
                wait = queue.tasks[0].arrived + patience - time.monotonic()
                if wait <= 0:
                    break
                self._changed.wait(wait)
            queue.taken = False
            batch: list[Task] = []
            rows = 0
            while queue.tasks and rows + queue.tasks[0].rows <= limit:
                rows += queue.tasks[0].rows
                batch.append(queue.tasks.popleft())
            queue.rows -= rows
            if not queue.tasks:
                del self._queues[key]
            return batch

    def _longest_waiting(self) -> Any:
        """The key of the queue whose first call came first, once there is one; None at the end."""
        while True:
            free = [(q.tasks[0].arrived, key) for key, q in self._queues.items() if not q.taken]
            if free:
                return min(free, key=lambda each: each[0])[1]
            if self._closed:
                return None
            self._idle += 1
            self._changed.wait()
            self._idle -= 1

    def _run_living(self, batch: Sequence[Task]) -> None:
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

    def _run_batch(self, tasks: Sequence[Task]) -> None:
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

    def _run_merged(self, tasks: Sequence[Task]) -> None:
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


def _fail(tasks: Sequence[Task], error: ServingError) -> None:
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
