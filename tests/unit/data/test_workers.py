"""Batches come back in order, whatever the number of processes; what goes wrong there is told here."""

import os

import pytest

from groundup.data import workers
from groundup.data.workers import map_ordered, worker_count
from groundup.errors import UserError


def test_in_this_process():
    assert list(map_ordered(sum, [[1, 2], [3]], 1)) == [([1, 2], 3), ([3], 3)]


def test_in_order_from_other_processes_with_few_in_flight():
    taken = []

    def batches():
        for number in range(30):
            taken.append(number)
            yield [number]

    results = map_ordered(sum, batches(), 2)
    assert next(results) == ([0], 0)
    assert len(taken) <= 2 * workers.WAITING_PER_PROCESS + 1
    assert [result for _, result in results] == list(range(1, 30))


def test_an_error_comes_through():
    with pytest.raises(TypeError):
        list(map_ordered(sum, [[1, "a"]], 2))


def test_a_process_that_dies_is_told():
    with pytest.raises(UserError, match="worker process ended") as error:
        list(map_ordered(os._exit, [1, 2], 2))
    assert "workers: 1" in error.value.fix


def test_as_many_as_what_is_read_is_worth(monkeypatch):
    monkeypatch.setattr(workers, "SMALL_CHARS", 5)
    monkeypatch.setattr(workers, "processors", lambda: 7)
    for texts, processes, taken_first in ((["ab", "cd"], 1, 2), (["ab", "cd", "ef", "gh"], 7, 3)):
        given, read = iter(texts), []
        count, jobs = worker_count(0, (read.append(text) or text for text in given), len)
        assert (count, len(read)) == (processes, taken_first)
        assert list(jobs) == texts
    count, jobs = worker_count(3, iter(["ab"]), len)
    assert (count, list(jobs)) == (3, ["ab"])
