"""The head in blocks against the plain formula, in float64, with gradients."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from groundup.model import head as head_module
from groundup.model import logits as logits_module
from groundup.model.head import Head

NEEDS = frozenset({"logp", "lse", "entropy"})
LOGP = frozenset({"logp"})
RULES = [
    {"bias": bias, "scale": scale, "softcap": softcap}
    for bias, scale, softcap in product((False, True), (1.0, 0.25), (None, 3.0))
]
MODES = ("frozen", "trained", "fused")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", 3 * 11 * 8)  # three reads a block in float64
    monkeypatch.setattr(logits_module, "TILE_ELEMENTS", 2 * 11)
    monkeypatch.setattr(logits_module, "STRIPE_ROWS", 4)


def make(trained=False, dtype=torch.float64, reads=8, vocab=11, hidden=6, **rule):
    generator = torch.Generator().manual_seed(0)
    head = Head(vocab, hidden, **rule).to(dtype)
    for parameter in head.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(drawn)
        parameter.requires_grad_(trained)
    hidden_ND = torch.randn(reads, hidden, generator=generator, dtype=torch.float64).to(dtype)
    target_N = torch.randint(0, vocab, (reads,), generator=generator)
    target_N[:5] = torch.tensor([0, 3, 3, vocab - 1, -1])
    return head, hidden_ND.requires_grad_(), target_N


def plain_logits(head, hidden_ND):
    logits_NV = hidden_ND @ head.weight.T
    if head.bias is not None:
        logits_NV = logits_NV + head.bias
    logits_NV = logits_NV * head.rule.scale
    cap = head.rule.softcap
    return logits_NV if cap is None else cap * torch.tanh(logits_NV / cap)


def plain(head, hidden_ND, target_N):
    logits_NV = plain_logits(head, hidden_ND)
    logp_NV = F.log_softmax(logits_NV, -1)
    logp_N = torch.where(target_N < 0, 0.0, logp_NV.gather(1, target_N.clamp_min(0)[:, None])[:, 0])
    return {
        "logp": logp_N,
        "lse": torch.logsumexp(logits_NV, -1),
        "entropy": -(logp_NV.exp() * logp_NV).sum(-1),
    }


def grads_of(found, weights, head, hidden_ND):
    """Gradients of the weighted sum to hidden, weight and bias, as far as they are trained."""
    total = sum((found[name] * weights[name]).sum() for name in found)
    inputs = [hidden_ND, *(p for p in head.parameters() if p.requires_grad)]
    return torch.autograd.grad(total, inputs, retain_graph=True)


def some_weights(reads, dtype=torch.float64):
    return {name: torch.linspace(-1, 2, reads, dtype=dtype) + i for i, name in enumerate(sorted(NEEDS))}


def run(mode, head, hidden_ND, target_N, weights):
    """logp and its gradients, through one of the head's three ways."""
    hint = (weights["logp"],) if mode == "fused" else ()
    found = head(hidden_ND, target_N, LOGP, *hint)
    return [found["logp"], *grads_of(found, weights, head, hidden_ND)]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("needs", [{"logp"}, {"lse"}, {"entropy"}, NEEDS], ids=lambda needs: "+".join(needs))
def test_values_and_gradients_equal_the_plain_formula(trained, needs, rule):
    head, hidden_ND, target_N = make(trained, **rule)
    weights = some_weights(8)
    found = head(hidden_ND, target_N, frozenset(needs))
    assert set(found) == set(needs)
    expected = {name: column for name, column in plain(head, hidden_ND, target_N).items() if name in needs}
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    ours, theirs = (grads_of(columns, weights, head, hidden_ND) for columns in (found, expected))
    assert len(ours) == 1 + trained * (1 + rule["bias"])
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_fused_gradients_equal_the_plain_formula(rule):
    head, hidden_ND, target_N = make(True, **rule)
    weights = some_weights(8)
    expected = {"logp": plain(head, hidden_ND, target_N)["logp"]}
    theirs = [expected["logp"], *grads_of(expected, weights, head, hidden_ND)]
    torch.testing.assert_close(
        run("fused", head, hidden_ND, target_N, weights), theirs, atol=1e-12, rtol=1e-10
    )


@pytest.mark.parametrize("function", ["_FrozenHead", "_TrainedHead"])
@pytest.mark.parametrize("rule", [RULES[0], RULES[-1]], ids=str)
def test_gradcheck(function, rule):
    head, hidden_ND, target_N = make(function == "_TrainedHead", **rule)
    apply = getattr(head_module, function).apply
    assert torch.autograd.gradcheck(
        lambda h, w, b: apply(h, w, b, target_N, head.rule, True, False),
        (hidden_ND, head.weight, head.bias),
        atol=1e-8,
    )


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_logits_are_the_same_ones(rule):
    head, hidden_ND, _ = make(True, **rule)
    ours, theirs = head.logits(hidden_ND), plain_logits(head, hidden_ND)
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=1e-13)
    inputs = [hidden_ND, *head.parameters()]
    weight_NV = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view_as(ours)
    ours, theirs = (torch.autograd.grad((each * weight_NV).sum(), inputs) for each in (ours, theirs))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_hint_changes_no_bit(dtype):
    head, hidden_ND, target_N = make(True, dtype, bias=True, scale=0.5, softcap=5.0)
    head = head.float()
    weights = some_weights(8, torch.float32)
    for ours, theirs in zip(
        run("fused", head, hidden_ND, target_N, weights),
        run("trained", head, hidden_ND, target_N, weights),
        strict=True,
    ):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype


def test_a_wrong_hint_is_only_a_hint():
    head, hidden_ND, target_N = make(True, bias=True)
    weights = some_weights(8)
    expected = run("trained", head, hidden_ND, target_N, weights)
    found = head(hidden_ND, target_N, LOGP, weights["logp"] + 1e-9)
    for _ in range(2):  # a second time through the same graph too
        ours = grads_of(found, weights, head, hidden_ND)
        torch.testing.assert_close(ours, tuple(expected[1:]), atol=0, rtol=0)
    found = head(hidden_ND, target_N, LOGP, weights["logp"])
    for _ in range(2):
        ours = grads_of(found, weights, head, hidden_ND)
        torch.testing.assert_close(ours, tuple(expected[1:]), atol=0, rtol=0)


def test_a_hint_in_float32_serves_a_model_in_float64():
    head, hidden_ND, target_N = make(True)
    weight_N = some_weights(8, torch.float32)["logp"]
    expected = run("trained", head, hidden_ND, target_N, {"logp": weight_N})
    found = head(hidden_ND, target_N, LOGP, weight_N)
    with Watch() as backward:
        ours = grads_of(found, {"logp": weight_N}, head, hidden_ND)
    assert backward.products == 0
    torch.testing.assert_close(ours, tuple(expected[1:]))


class Watch(TorchDispatchMode):
    """Counts matrix products, and notes the largest tensor that anything gave."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.largest_bytes = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.products += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.largest_bytes = max(self.largest_bytes, leaf.untyped_storage().nbytes())
        return result


def test_what_is_known_is_not_computed_twice():
    """Products by block (8 reads in 3 blocks): logits; pW or dh; dW."""
    weights = some_weights(8)
    counts = {}
    for mode in MODES:
        head, hidden_ND, target_N = make(mode != "frozen")
        with Watch() as forward:
            found = head(hidden_ND, target_N, LOGP, weights["logp"])
        if mode == "trained":
            weights = {"logp": weights["logp"] * 2}
        with Watch() as backward:
            grads_of(found, weights, head, hidden_ND)
        counts[mode] = (forward.products, backward.products)
        with Watch() as alone, torch.no_grad():
            head(hidden_ND, target_N, LOGP, weights["logp"])
        assert alone.products == 3
    assert counts == {"frozen": (6, 0), "trained": (9, 9), "fused": (9, 0)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_all_reads_never_exist(monkeypatch, dtype):
    vocab, reads, hidden = 512, 640, 8
    block_bytes = 32 * vocab * 4
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(logits_module, "TILE_ELEMENTS", 16 * vocab)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for mode, needs in product(MODES, (LOGP, NEEDS)):
        head, hidden_ND, target_N = make(mode != "frozen", dtype, reads, vocab, hidden, softcap=5.0)
        weights = some_weights(reads, torch.float32)
        hint = (weights["logp"],) if mode == "fused" else ()
        with Watch() as watch:
            grads_of(head(hidden_ND, target_N, needs, *hint), weights, head, hidden_ND)
        assert block_bytes <= watch.largest_bytes < 1.1 * block_bytes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 100])
def test_any_block_size_gives_the_same(monkeypatch, mode, rows):
    head, hidden_ND, target_N = make(mode != "frozen", bias=True, softcap=5.0)
    weights = some_weights(8)
    expected = run(mode, head, hidden_ND, target_N, weights)
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", rows * 11 * 8)
    monkeypatch.setattr(logits_module, "TILE_ELEMENTS", 3 * 11)
    torch.testing.assert_close(
        run(mode, head, hidden_ND, target_N, weights), expected, atol=1e-13, rtol=1e-13
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_same_bits_thirty_times(monkeypatch, mode):
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", 48 * 500 * 2)
    monkeypatch.setattr(logits_module, "TILE_ELEMENTS", 7 * 500)
    head, hidden_ND, target_N = make(mode != "frozen", torch.bfloat16, 200, 500, 32, bias=True)
    head = head.float() if mode != "frozen" else head
    target_N = target_N % 5  # few tokens, each many times
    weights = some_weights(200, torch.float32)
    first = run(mode, head, hidden_ND, target_N, weights)
    for _ in range(29):
        for ours, theirs in zip(run(mode, head, hidden_ND, target_N, weights), first, strict=True):
            assert torch.equal(ours, theirs)


def test_nothing_is_kept_without_gradients():
    head, hidden_ND, target_N = make(True)
    with torch.no_grad():
        found = head(hidden_ND, target_N, NEEDS)
    assert all(not column.requires_grad for column in found.values())
    torch.testing.assert_close(found, plain(head, hidden_ND.detach(), target_N))


@pytest.mark.parametrize("mode", MODES)
def test_no_reads_and_extreme_logits(mode):
    head, hidden_ND, target_N = make(mode != "frozen")
    nothing = run(mode, head, hidden_ND[:0], target_N[:0], {"logp": torch.ones(0, dtype=torch.float64)})
    assert nothing[0].shape == (0,) and all((grad == 0).all() for grad in nothing[1:])
    large_ND = (hidden_ND * 1e4).detach().requires_grad_()
    found = run(mode, head, large_ND, target_N, some_weights(8))
    torch.testing.assert_close(found[0], plain(head, large_ND, target_N)["logp"])
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_stays_near_float64(monkeypatch, mode):
    """The error is that of rounding logits and probabilities to bfloat16, 2^-9, not of summing in it."""
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", 64 * 2000 * 2)
    head, hidden_ND, target_N = make(mode != "frozen", torch.bfloat16, 300, 2000, 64)
    exact, exact_ND = Head(2000, 64).double(), hidden_ND.detach().double().requires_grad_()
    head.weight.data.mul_(0.3)
    exact.weight.data.copy_(head.weight)
    head = head.float() if mode != "frozen" else head
    weights = some_weights(300, torch.float32)
    ours = run(mode, head, hidden_ND, target_N, weights)
    expected = {"logp": plain(exact, exact_ND, target_N)["logp"]}
    theirs = [expected["logp"], *grads_of(expected, weights, exact, exact_ND)]
    assert [each.dtype for each in ours] == [torch.float32, torch.bfloat16, torch.float32][: len(ours)]
    largest = float(plain_logits(exact, exact_ND).detach().abs().max())
    assert (ours[0] - theirs[0]).abs().max() < largest * 2**-8
    for mine, true in zip(ours[1:], theirs[1:], strict=False):
        assert (mine.double() - true).norm() < 2**-8 * true.norm()
    rounded_NV = (hidden_ND @ head.weight.bfloat16().T).double()
    lse_N = head(hidden_ND, target_N, frozenset({"lse"}))["lse"]
    torch.testing.assert_close(lse_N.double(), torch.logsumexp(rounded_NV, -1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_float32_stays_near_float64(softcap):
    head, hidden_ND, target_N = make(True, torch.float32, 64, 500, 32, softcap=softcap)
    exact = Head(500, 32, softcap=softcap).double()
    exact.weight.data.copy_(head.weight)
    ours = head(hidden_ND, target_N, NEEDS)
    expected = plain(exact, hidden_ND.detach().double(), target_N)
    for name, column in ours.items():
        torch.testing.assert_close(column.double(), expected[name], atol=1e-5, rtol=1e-6)
