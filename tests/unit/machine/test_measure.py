import time

import pytest
import torch

from groundup.machine import choose_dtype, measure, measure_dtypes


def slow_products(gflops):
    """Stand-in matrix products that take as long as a machine of that many GFLOP/s would, per dtype."""

    def products(shape, dtype, device):
        m, k, n = shape
        return lambda: time.sleep(6 * m * k * n / 1e9 / gflops[str(dtype).removeprefix("torch.")])

    return products


def test_measures_both_dtypes_on_this_machine(monkeypatch):
    monkeypatch.setattr(measure, "has_bfloat16", lambda: True)
    measured = measure_dtypes([(64, 48, 96), (64, 96, 48)], seconds=0.1)
    assert set(measured) == {"float32", "bfloat16"}
    assert all(rate > 0 for rate in measured.values())


def test_an_emulated_dtype_is_never_chosen_however_slow_float32_seems(monkeypatch):
    """A busy machine starves float32's threads at their barriers; the emulation has one thread and no barrier."""
    monkeypatch.setattr(measure, "has_bfloat16", lambda: False)
    monkeypatch.setattr(measure, "_products", slow_products({"float32": 1, "bfloat16": 30}))
    measured = measure_dtypes([(128, 64, 256)], seconds=0.2)
    assert measured["bfloat16"] == 0 < measured["float32"]
    chosen, reason = choose_dtype(measured)
    assert chosen == "float32" and "no instructions for bfloat16" in reason


def test_finds_the_faster_dtype(monkeypatch):
    monkeypatch.setattr(measure, "has_bfloat16", lambda: True)
    monkeypatch.setattr(measure, "_products", slow_products({"float32": 10, "bfloat16": 30}))
    measured = measure_dtypes([(128, 64, 256)], seconds=0.2)
    assert measured["bfloat16"] / measured["float32"] == pytest.approx(3, rel=0.3)


def test_a_dtype_whose_threads_were_held_up_for_a_moment_is_looked_at_again(monkeypatch):
    quick = slow_products({"float32": 10, "bfloat16": 30})
    held_up = iter([True] * 3)

    def products(shape, dtype, device):
        if dtype == torch.bfloat16 and next(held_up, False):
            return lambda: time.sleep(0.02)
        return quick(shape, dtype, device)

    monkeypatch.setattr(measure, "has_bfloat16", lambda: True)
    monkeypatch.setattr(measure, "_products", products)
    measured = measure_dtypes([(128, 64, 256)], seconds=0.3)
    assert choose_dtype(measured)[0] == "bfloat16"


def test_a_dtype_500_times_slower_does_not_take_the_time(monkeypatch):
    monkeypatch.setattr(measure, "has_bfloat16", lambda: True)
    monkeypatch.setattr(measure, "_products", slow_products({"float32": 100, "bfloat16": 0.2}))
    started = time.monotonic()
    measured = measure_dtypes([(2048, 2048, 2048)], seconds=0.3)
    assert time.monotonic() - started < 5.0
    assert measured["float32"] > 20 * measured["bfloat16"]


def test_large_matrices_stay_within_the_time():
    started = time.monotonic()
    measure_dtypes([(8192, 8192, 65536)], seconds=0.3)
    assert time.monotonic() - started < 20.0


def test_sizes_grow_to_the_real_shapes():
    sizes = measure._growing([(300, 64, 10), (300, 64, 10)])
    assert sizes[0] == [(64, 64, 10)]
    assert sizes[-1] == [(300, 64, 10)]


@pytest.mark.parametrize(
    "plain, short, name, said",
    [
        (100.0, 250.0, "bfloat16", "2.5 times"),
        (100.0, 105.0, "float32", "hardly faster"),
        (100.0, 0.2, "float32", "500.0 times"),
    ],
)
def test_choice_and_its_reason(plain, short, name, said):
    chosen, reason = choose_dtype({"float32": plain, "bfloat16": short})
    assert chosen == name
    assert said in reason
