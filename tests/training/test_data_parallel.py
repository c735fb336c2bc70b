"""Work in several processes: order, and a process that dies."""

import pytest

from clipsynth_training.data.parallel import CRASHED, ordered_map

DIES = "__import__('os')._exit(1)"


def test_results_keep_the_order_of_the_tasks():
    tasks = ["__import__('time').sleep(0.2) or 0", *(f"{number}" for number in range(1, 20))]
    assert list(ordered_map(eval, tasks, workers=2)) == list(zip(tasks, range(20), strict=True))


def test_a_process_that_dies_costs_one_result():
    tasks = ["0", "1", DIES, *(f"{number}" for number in range(3, 12))]
    results = dict(ordered_map(eval, tasks, workers=2))
    assert results[DIES] is CRASHED
    assert [results[task] for task in tasks if task != DIES] == [0, 1, *range(3, 12)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_reaches_the_caller(workers):
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(eval, ["1", "1 / 0"], workers))
