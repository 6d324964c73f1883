"""The order of records: each once an epoch, whatever the step is asked for first, however many processes share it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.batch import Chain, Record, Stream, deal, pack_step
from groundup.batch.stream import ROUNDS, permuted

SIZES = st.one_of(
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.integers(1, 5000).map(lambda count: [1 + i * i % 7 for i in range(count)]),
)


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, batch=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_each_record_once_an_epoch_and_no_step_depends_on_another(sizes, batch, seed):
    sizes = np.array(sizes, dtype=np.int32)
    batch = max(batch, int(sizes.sum()) // 50)
    stream = Stream(sizes, batch, seed)
    steps = -(-2 * int(sizes.sum()) // batch)
    seen = [stream.records_of(step) for step in range(steps)]
    two_epochs = np.concatenate(seen)[: 2 * len(sizes)]
    for epoch in np.split(two_epochs, 2):
        assert sorted(epoch) == list(range(len(sizes)))
    begins = np.cumsum(sizes[two_epochs], dtype=np.int64) - sizes[two_epochs]
    steps_of = np.repeat(np.arange(steps), [len(records) for records in seen])[: len(begins)]
    np.testing.assert_array_equal(steps_of, begins // batch)
    for step in {
        steps - 1,
        steps // 2,
        0,
    }:  # a resumed run: a new stream, asked for a step in the middle first
        np.testing.assert_array_equal(Stream(sizes, batch, seed).records_of(step), seen[step])


def test_steps_and_epochs():
    stream = Stream(np.array([3, 1, 4, 1, 5]), 4, 0)
    assert stream.steps_for(1) == 4 and stream.steps_for(2) == 7 and stream.steps_for(0.01) == 1
    assert stream.epoch_at(4) >= 1.0 > stream.epoch_at(3)


def test_epochs_and_seeds_have_orders_of_their_own():
    sizes = np.ones(500, dtype=np.int64)
    first, second = (Stream(sizes, 500, 0).records_of(step) for step in (0, 1))
    other = Stream(sizes, 500, 1).records_of(0)
    for order in (second, other, np.arange(500)):
        assert (first == order).sum() < 10


@pytest.mark.parametrize("count", [1, 2, 3, 7, 255, 256, 257, 1000])
def test_it_is_a_permutation(count):
    keys = np.random.default_rng(count).integers(2**64, size=ROUNDS, dtype=np.uint64)
    found = permuted(np.arange(count, dtype=np.uint64), count, keys)
    assert sorted(found) == list(range(count))


def test_every_record_is_anywhere_equally_often():
    """Chi-squared of (record, place) over many keys; 81 degrees of freedom, so 150 is far beyond chance."""
    table = np.zeros((10, 10))
    places = np.arange(10, dtype=np.uint64)
    for seed in range(1000):
        keys = np.random.default_rng(seed).integers(2**64, size=ROUNDS, dtype=np.uint64)
        table[places.astype(int), permuted(places, 10, keys).astype(int)] += 1
    assert ((table - 100) ** 2 / 100).sum() < 150


def test_neighbours_are_no_longer_neighbours():
    keys = np.random.default_rng(0).integers(2**64, size=ROUNDS, dtype=np.uint64)
    found = permuted(np.arange(10_000, dtype=np.uint64), 10_000, keys).astype(np.int64)
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.04
    assert (np.abs(np.diff(found)) < 10).mean() < 0.01


def test_many_records_cost_little_beside_their_sizes():
    sizes = np.full(1_000_000, 100, dtype=np.int32)
    tracemalloc.start()
    stream = Stream(sizes, 10_000, 0)
    stream.records_of(5)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000, "a permutation alone would have 8,000,000 bytes"
    assert peak < 40_000_000


@settings(max_examples=20, deadline=None)
@given(world_size=st.integers(1, 6), lengths=st.lists(st.integers(2, 30), min_size=1, max_size=20))
def test_processes_share_the_rows_that_one_alone_would_have(world_size, lengths):
    records = [
        Record(i, (Chain(np.arange(n, dtype=np.int32), np.arange(n) > 0),)) for i, n in enumerate(lengths)
    ]
    rows = pack_step(records, 32)
    dealt = [deal(rows, rank, world_size) for rank in range(world_size)]
    assert sorted(map(id, rows)) == sorted(id(row) for part in dealt for row in part)
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert sum(float(row.weight_N.sum()) for part in dealt for row in part) == pytest.approx(1.0)
