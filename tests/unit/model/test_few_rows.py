"""Products with prepared weights beside the plain ones."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import few_rows
from groundup.model.few_rows import FewRows, can_pack

SIZES = (10, 6)


def layers(dtype: torch.dtype, bias: bool) -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(size, 24, generator=draw).to(dtype) for size in SIZES]
    return weights, [torch.randn(size, generator=draw).to(dtype) if bias else None for size in SIZES]


@pytest.mark.parametrize("how", ["packed", "joined", "as they are"])
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_products_are_the_linear_layers(rows, dtype, bias, how, monkeypatch):
    if how == "joined":
        monkeypatch.setattr(few_rows, "can_pack", lambda weight: False)
    weights, biases = layers(dtype, bias)
    x, onto = (
        torch.randn(rows, width, generator=torch.Generator().manual_seed(2)) for width in (24, SIZES[0])
    )
    product = FewRows(weights, biases, copy=how != "as they are")
    assert product._packed == (how == "packed" and can_pack(weights[0]))
    # bfloat16 rounds to 2^-9 of a number; sums of size 16 are rounded on the way
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.07, "rtol": 2.0**-8}
    x, onto = x.to(dtype), onto.to(dtype)
    true = [
        F.linear(x.float(), weight.float(), None if given is None else given.float())
        for weight, given in zip(weights, biases, strict=True)
    ]
    for found, expected in zip(product(x), true, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, **near)
    alone = FewRows(weights[:1], biases[:1], copy=how != "as they are")
    torch.testing.assert_close(alone.onto(onto, x).float(), onto.float() + true[0], **near)


def test_a_layer_without_a_bias_may_stand_beside_one_that_has_it(monkeypatch):
    weights, (first, _) = layers(torch.float32, bias=True)
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(2))
    for packs in (can_pack, lambda weight: False):
        monkeypatch.setattr(few_rows, "can_pack", packs)
        for given in ([first, None], [None, torch.ones(SIZES[1])]):
            for found, weight, bias in zip(FewRows(weights, given)(x), weights, given, strict=True):
                torch.testing.assert_close(found, F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)


def test_this_pytorch_has_the_products_that_make_generation_fast():
    if torch.backends.mkldnn.is_available():
        assert can_pack(torch.zeros(2, 2))


def test_only_a_cpus_plain_dtypes_are_packed(monkeypatch):
    assert not can_pack(torch.zeros(2, 2, dtype=torch.float64))
    assert not can_pack(torch.zeros(2, 2, device="meta"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(torch.zeros(2, 2))
