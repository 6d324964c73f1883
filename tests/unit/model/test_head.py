"""The tiled head against the plain formula, in float64, with gradients."""

import pytest
import torch
from torch.nn import functional as F

from groundup.model import head as head_module
from groundup.model.head import Head

NEEDS = frozenset({"logp", "lse", "entropy"})


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(head_module, "TILE_ELEMENTS", 3 * 11)  # three reads a tile


def make(trained: bool, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    head = Head(11, 6).to(dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(11, 6, generator=generator))
    head.weight.requires_grad_(trained)
    hidden_ND = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    target_N = torch.tensor([0, 3, 3, 10, -1, 5, 7, 2])
    return head, hidden_ND, target_N


def plain(head, hidden_ND, target_N):
    logits_NV = hidden_ND @ head.weight.T
    logp_NV = F.log_softmax(logits_NV, -1)
    logp_N = torch.where(target_N < 0, 0.0, logp_NV.gather(1, target_N.clamp_min(0)[:, None])[:, 0])
    return {
        "logp": logp_N,
        "lse": torch.logsumexp(logits_NV, -1),
        "entropy": -(logp_NV.exp() * logp_NV).sum(-1),
    }


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("needs", [{"logp"}, {"lse"}, {"entropy"}, NEEDS])
def test_values_and_gradients_equal_the_plain_formula(trained, needs):
    head, hidden_ND, target_N = make(trained)
    weight = {name: torch.linspace(-1, 2, 8, dtype=torch.float64) + i for i, name in enumerate(sorted(NEEDS))}
    results = []
    for formula in (
        lambda: head(hidden_ND, target_N, frozenset(needs)),
        lambda: plain(head, hidden_ND, target_N),
    ):
        found = formula()
        total = sum((found[name] * weight[name]).sum() for name in needs)
        inputs = [hidden_ND, head.weight] if trained else [hidden_ND]
        results.append(([found[name] for name in sorted(needs)], torch.autograd.grad(total, inputs)))
    for ours, theirs in zip(
        results[0][0] + list(results[0][1]), results[1][0] + list(results[1][1]), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("trained", [False, True])
def test_gradcheck(trained):
    head, hidden_ND, target_N = make(trained)
    function = head_module._TrainedHead if trained else head_module._FrozenHead
    assert torch.autograd.gradcheck(
        lambda h, w: function.apply(h, w, target_N, True), (hidden_ND, head.weight), atol=1e-8
    )


def test_only_what_is_asked_for():
    head, hidden_ND, target_N = make(False)
    assert set(head(hidden_ND, target_N, frozenset({"lse"}))) == {"lse"}


def test_nothing_is_kept_without_gradients():
    head, hidden_ND, target_N = make(False)
    with torch.no_grad():
        found = head(hidden_ND, target_N, NEEDS)
    assert all(not column.requires_grad for column in found.values())
    torch.testing.assert_close(found, plain(head, hidden_ND.detach(), target_N))


def test_no_reads_and_extreme_logits():
    head, hidden_ND, target_N = make(False)
    assert head(hidden_ND[:0], target_N[:0], NEEDS)["logp"].shape == (0,)
    found = head(hidden_ND * 1e4, target_N, NEEDS)
    torch.testing.assert_close(found["logp"], plain(head, hidden_ND * 1e4, target_N)["logp"])
    found["logp"].sum().backward()
    assert hidden_ND.grad.isfinite().all()


def test_bfloat16_sums_in_float32():
    """The error is that of rounding logits to bfloat16, not of summing in it."""
    head, hidden_ND, target_N = make(True, torch.bfloat16)
    head.weight = torch.nn.Parameter(head.weight.detach().float())
    found = head(hidden_ND, target_N, NEEDS)
    assert {column.dtype for column in found.values()} == {torch.float32}
    rounded_NV = (hidden_ND @ head.weight.bfloat16().T).float()
    torch.testing.assert_close(found["lse"], torch.logsumexp(rounded_NV, -1), atol=1e-6, rtol=1e-6)
    found["logp"].sum().backward()
    assert head.weight.grad.dtype == torch.float32 and hidden_ND.grad.dtype == torch.bfloat16
    exact = make(True)
    plain(exact[0], exact[1], target_N)["logp"].sum().backward()
    for ours, theirs in ((head.weight.grad, exact[0].weight.grad), (hidden_ND.grad, exact[1].grad)):
        assert F.cosine_similarity(ours.double().flatten(), theirs.flatten(), dim=0) > 0.999
