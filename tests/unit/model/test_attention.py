"""Bucketed attention against the plain reference, in float64, with gradients."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from groundup.model import attention
from groundup.model.attention import ForestAttention, chains, plain_attention


def forest(lengths, parents):
    """As much of a batch as attention reads."""
    length_S = torch.tensor(lengths)
    return SimpleNamespace(
        token_T=torch.zeros(int(length_S.sum()), dtype=torch.int64),
        start_S=length_S.cumsum(0) - length_S,
        length_S=length_S,
        parent_S=torch.tensor(parents),
    )


FORESTS = {
    "one": forest([9], [-1]),
    "one token": forest([1, 1], [-1, 0]),
    "packed": forest([5, 13, 6, 1], [-1, -1, -1, -1]),
    "shared": forest([7, 3, 4, 1, 11, 2, 2, 8], [-1, 0, 0, 0, -1, 4, 4, -1]),
}


def qkv(batch, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tokens = len(batch.token_T)
    shapes = ((tokens, 6, 4), (tokens, 2, 4), (tokens, 2, 4))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in shapes
    ]


@pytest.fixture(params=[3, 256], ids=["small tiles", "whole segments"])
def tile(request, monkeypatch):
    monkeypatch.setattr(attention, "TILE_QUERIES", request.param)


@pytest.mark.parametrize(("name", "window"), itertools.product(FORESTS, [None, 1, 4]))
@pytest.mark.parametrize("kept", [0, 1 << 20], ids=["recomputed", "kept"])
def test_buckets_equal_the_plain_reference(name, window, kept, tile, monkeypatch):
    monkeypatch.setattr(attention, "KEPT_PROBABILITIES", kept)
    batch = FORESTS[name]
    inputs = qkv(batch)
    fast = ForestAttention(batch, [window])(0, *inputs)
    plain = plain_attention(*inputs, chains(batch), window)
    torch.testing.assert_close(fast, plain, atol=1e-12, rtol=1e-10)
    weight = torch.randn(fast.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((out * weight).sum(), inputs) for out in (fast, plain))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-12, rtol=1e-10)


def test_gradcheck(tile):
    batch = forest([4, 2, 3], [-1, 0, 0])
    attend = ForestAttention(batch, [3])
    assert torch.autograd.gradcheck(lambda *inputs: attend(0, *inputs), qkv(batch), atol=1e-7)


def test_siblings_do_not_see_each_other():
    batch = FORESTS["shared"]
    query, key, value = (x.detach() for x in qkv(batch))
    before = ForestAttention(batch, [None])(0, query, key, value)
    key[7:10] += 1.0  # the first child of the first root
    changed = (ForestAttention(batch, [None])(0, query, key, value) != before).any(-1).any(-1)
    assert changed.nonzero()[:, 0].tolist() == [7, 8, 9]


def test_padding_stays_within_its_limit():
    batch = forest([40, 3, 41, 200, 39, 199, 3, 2], [-1] * 8)
    attend = ForestAttention(batch, [None])
    attend(0, *qkv(batch))
    (buckets,) = attend.buckets.values()
    padded = sum(b * n * m for b, n, m in (bucket.shape for bucket in buckets))
    true = sum(length**2 for length in batch.length_S.tolist())
    assert padded <= attention.MAX_PADDING * true
    assert len(buckets) < 8


def test_bfloat16_stays_near_float64():
    batch = FORESTS["shared"]
    exact = qkv(batch)
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    outputs = [ForestAttention(batch, [None])(0, *inputs) for inputs in (exact, rounded)]
    assert (outputs[0] - outputs[1]).abs().max() < 0.02
    gradients = [torch.autograd.grad(o.sum(), i) for o, i in zip(outputs, (exact, rounded), strict=True)]
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()
