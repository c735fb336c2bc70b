"""One function over many tasks in several processes, in order, surviving a process that dies."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Crashed:
    """Stands for the result of a task whose process died (a decoder's segmentation fault)."""


CRASHED: Final = Crashed()


def single_thread() -> None:
    """Keep torch to one thread, in a worker process: the processes share the cores already."""
    import torch

    torch.set_num_threads(1)


def ordered_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[tuple[Task, Result | Crashed]]:
    """Yield each task with its result, in the order of the tasks.

    Processes are spawned, not forked: threads of torch or FFmpeg do not survive a fork. Only a
    few tasks a worker are under way at a time, so results do not pile up in memory.

    Args:
        function: Importable by its module, like its arguments and results sent between processes.
        tasks: What it is called with.
        workers: Processes; 1 runs everything in this process, which then has no protection from
            a task that kills it.
        initializer: Called once in each worker process.

    Yields:
        The task, and what ``function`` returned or ``CRASHED``.
    """
    if workers <= 1:
        for task in tasks:
            yield task, function(task)
        return
    waiting = deque[Task]()
    remaining = iter(tasks)
    pool = _pool(workers, initializer)
    pending: deque[tuple[Task, Future[Result]]] = deque()
    try:
        while True:
            try:
                waiting.extend(itertools.islice(remaining, 4 * workers - len(pending)))
                while waiting:
                    # taken off after submit, which raises when the pool is broken
                    pending.append((waiting[0], pool.submit(function, waiting[0])))
                    waiting.popleft()
                if not pending:
                    return
                result = pending[0][1].result()
            except BrokenProcessPool:
                # one of these killed its worker, and the pool does not say which
                pool.shutdown(wait=False, cancel_futures=True)
                for task, _ in pending:
                    yield task, _alone(function, task, initializer)
                pending.clear()
                pool = _pool(workers, initializer)
            else:
                task, _ = pending.popleft()
                yield task, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int, initializer: Callable[[], None] | None) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=initializer)


def _alone(
    function: Callable[[Task], Result], task: Task, initializer: Callable[[], None] | None
) -> Result | Crashed:
    with _pool(1, initializer) as pool:
        try:
            return pool.submit(function, task).result()
        except BrokenProcessPool:
            return CRASHED
