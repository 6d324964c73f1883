"""How fast this machine multiplies matrices of a model's own shapes, in each dtype that could train it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Shape = tuple[int, int, int]  # m, k, n: [m,k] times [k,n]
DTYPES = ("float32", "bfloat16")
FIRST_CAP = 64  # small enough that a dtype 1,000 times slower than the other still costs only milliseconds
HOPELESS = 6.0  # a dtype this many times slower is not timed on larger matrices
SECOND_LOOKS = 5  # before that is believed: another program may have held up the threads of one dtype
WORTHWHILE = 1.1  # bfloat16 rounds; it must win by this much, which is also more than the timing's noise
ROUNDS_PER_SIZE = 2  # the first call of a shape also builds its kernel


def measure_dtypes(shapes: Sequence[Shape], seconds: float = 1.0, device: str = "cpu") -> dict[str, float]:
    """GFLOP/s of the forward and both backward products of `shapes`, for each dtype name.

    shapes: (m, k, n) of a linear layer: m tokens, k features in, n features out. The rate is the total work over
    the total of each shape's best time. Sizes grow from small ones together for all dtypes, so the time is bounded
    by about `seconds` even where one dtype is emulated; a model too large for that is measured on the largest
    sizes that fit. A processor that cannot compute in bfloat16 gets a rate of 0 for it, unmeasured: another program
    slows float32, which runs on all cores, far more than the emulation on one, and would make that one look faster.
    """
    racing = [name for name in DTYPES if name != "bfloat16" or device != "cpu" or has_bfloat16()]
    rates: dict[str, float] = {name: 0.0 for name in DTYPES if name not in racing}
    best: dict[str, dict[Shape, float]] = {}
    growing = _growing(shapes)
    _race(
        {name: {} for name in racing}, growing[0], device
    )  # the first products of a process load their kernels
    deadline = time.monotonic() + seconds
    for sizes in growing:
        if best and time.monotonic() + ROUNDS_PER_SIZE * _predict(sizes, rates, racing) > deadline:
            break
        best = {name: {} for name in racing}
        for _ in range(ROUNDS_PER_SIZE):
            _race(best, sizes, device)
        rates |= {name: _rate(times) for name, times in best.items()}
        for _ in range(SECOND_LOOKS):
            slow = {name: best[name] for name in racing if rates[name] * HOPELESS < max(rates.values())}
            if not slow or time.monotonic() > deadline:
                break
            _race(slow, sizes, device)
            rates |= {name: _rate(times) for name, times in slow.items()}
        racing = [name for name in racing if rates[name] * HOPELESS >= max(rates.values())]
    while len(racing) > 1 and time.monotonic() + _predict(best[racing[0]], rates, racing) < deadline:
        _race(best, list(best[racing[0]]), device)
        rates |= {name: _rate(times) for name, times in best.items()}
    return rates


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16 by itself, or PyTorch cannot tell."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a build without oneDNN: measuring has to do
        return True


def _figures(rate: float) -> str:
    """A machine with much else to do gets a small one, of small matrices."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def choose_dtype(measured: dict[str, float]) -> tuple[str, str]:
    """The dtype to compute in, and a sentence for people that says why."""
    plain, short = measured["float32"], measured["bfloat16"]
    if not short:
        return (
            "float32",
            f"this processor has no instructions for bfloat16 (float32: {_figures(plain)} GFLOP/s, measured)",
        )
    numbers = f"({_figures(short)} against {_figures(plain)} GFLOP/s, measured)"
    if short >= WORTHWHILE * plain:
        return (
            "bfloat16",
            f"bfloat16 is {short / plain:.1f} times as fast as float32 on this machine {numbers}",
        )
    if short >= plain:
        return "float32", f"bfloat16 is hardly faster than float32 on this machine {numbers}"
    return (
        "float32",
        f"float32 is {plain / short:.1f} times as fast as bfloat16 on this machine {numbers}",
    )


def _growing(shapes: Sequence[Shape]) -> list[list[Shape]]:
    """The distinct shapes with every side capped: first tiny, then twice as large, at last as they are."""
    largest = max(max(shape) for shape in shapes)
    caps = [FIRST_CAP]
    while caps[-1] < largest:
        caps.append(caps[-1] * 2)
    return [sorted({(min(m, cap), min(k, cap), min(n, cap)) for m, k, n in shapes}) for cap in caps]


def _work(shape: Shape) -> float:
    """Floating-point operations of y = x W, dx = dy W', dW = x' dy."""
    m, k, n = shape
    return 6.0 * m * k * n


def _predict(
    sizes: Sequence[Shape] | dict[Shape, float], rates: dict[str, float], racing: Sequence[str]
) -> float:
    """Seconds that one round over `sizes` will take at the rates seen so far."""
    return sum(sum(map(_work, sizes)) / (rates[name] * 1e9) for name in racing)


def _rate(times: dict[Shape, float]) -> float:
    return sum(map(_work, times)) / sum(times.values()) / 1e9


def _race(best: dict[str, dict[Shape, float]], sizes: Sequence[Shape], device: str) -> None:
    """One round: every dtype on every shape in turn, so that a disturbance meets them all; the best times stay."""
    import torch

    for shape in sizes:
        for name, times in best.items():
            seconds = _time_once(_products(shape, getattr(torch, name), device), device)
            times[shape] = min(seconds, times.get(shape, seconds))


def _products(shape: Shape, dtype: torch.dtype, device: str) -> Callable[[], object]:
    import torch

    m, k, n = shape
    x_mk = torch.ones(m, k, dtype=dtype, device=device)
    weight_nk = torch.ones(n, k, dtype=dtype, device=device)
    dy_mn = torch.ones(m, n, dtype=dtype, device=device)
    return lambda: (x_mk @ weight_nk.T, dy_mn @ weight_nk, dy_mn.T @ x_mk)


def _time_once(run: Callable[[], object], device: str) -> float:
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    started = time.perf_counter()
    run()
    wait()
    return max(time.perf_counter() - started, 1e-9)
