"""The fused formulas against autograd on the plain ones."""

import pytest
import torch

from groundup.model.functions import lora_linear, rms_norm
from groundup.model.rope import rotate


def draw(*shape):
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape))
    ).requires_grad_()


def test_rms_norm():
    x, weight = draw(3, 4, 5), draw(5)
    expected = weight * x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), expected)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3), (x, weight))
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, weight.detach(), 1e-3), (x,))


@pytest.mark.parametrize("bias", [False, True])
def test_lora_linear(bias):
    x, weight, a, b = draw(7, 4), draw(5, 4).detach(), draw(2, 4), draw(5, 2)
    bias_O = draw(5).detach() if bias else None
    expected = x @ weight.T + 1.5 * (x @ a.T) @ b.T + (0 if bias_O is None else bias_O)
    torch.testing.assert_close(lora_linear(x, weight, bias_O, a, b, 1.5), expected)
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, weight, bias_O, a, b, 1.5), (x, a, b))


def test_rotation_by_zero_is_nothing_and_keeps_length():
    x, angle = draw(3, 2, 6), draw(3, 3).detach()
    assert torch.equal(rotate(x, torch.ones_like(angle), torch.zeros_like(angle)), x)
    turned = rotate(x, angle.cos(), angle.sin())
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.autograd.gradcheck(lambda x: rotate(x, angle.cos(), angle.sin()), (x,))
