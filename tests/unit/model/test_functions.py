"""The fused formulas against autograd on the plain ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


# Any shape, any of the gradients that autograd may ask for, and the error in bfloat16.


def plain_norm(x, weight_D, eps=1e-3):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight_D * (wide / (wide.square().mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)


def plain_lora(x, weight, a, b):
    return x @ weight.T + 0.7 * ((x @ a.T) @ b.T)


def plain_rotation(x_THd, angle_Td):
    """Each pair (i, i + d/2) as one complex number, times e^(i angle)."""
    real, imaginary = x_THd.chunk(2, dim=-1)
    turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle_Td), angle_Td)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def output_and_gradients(function, inputs, wanted):
    """Of a weighted sum of the output; `wanted` says which inputs have a gradient."""
    leaves = [x.detach().clone().requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)]
    output = function(*leaves)
    weight = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    chosen = [leaf for leaf in leaves if leaf.requires_grad]
    return [output.detach(), *torch.autograd.grad(output, chosen, weight.to(output.dtype))]


def assert_same(fused, plain, inputs, wanted):
    expected = output_and_gradients(plain, inputs, wanted)
    for ours, formula in zip(output_and_gradients(fused, inputs, wanted), expected, strict=True):
        torch.testing.assert_close(ours, formula, atol=1e-9, rtol=1e-9)


SIZE = st.integers(1, 9)
ANY = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)


@given(st.lists(SIZE, min_size=2, max_size=3), SIZE, st.sampled_from([[True, False], [True, True]]))
@settings(max_examples=25, deadline=None)
def test_any_rms_norm(sizes, width, wanted):
    """Also of rows that do not lie one behind the other, as queries and keys do."""
    x, weight = draw(*sizes, 2 * width).detach()[..., :width], draw(width).detach()
    assert_same(lambda x, w: rms_norm(x, w, 1e-3), plain_norm, (x, weight), wanted)


@given(SIZE, SIZE, SIZE, st.integers(1, 4), ANY)
@settings(max_examples=25, deadline=None)
def test_any_lora_linear(tokens, inputs, outputs, rank, wanted):
    """The first layer's input has no gradient where the embedding is frozen."""
    x, a, b = (draw(*shape).detach() for shape in ((tokens, inputs), (rank, inputs), (outputs, rank)))
    weight = draw(outputs, inputs, 1).detach()[..., 0]
    assert_same(
        lambda x, a, b: lora_linear(x, weight, None, a, b, 0.7),
        lambda x, a, b: plain_lora(x, weight, a, b),
        (x, a, b),
        wanted,
    )


@given(SIZE, SIZE, st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_any_rotation(tokens, heads, half):
    x, angle = draw(tokens, heads, 2 * half).detach(), 40 * draw(tokens, half).detach()
    assert_same(
        lambda x: rotate(x, angle.cos(), angle.sin()), lambda x: plain_rotation(x, angle), [x], [True]
    )


def rounded(*shape, scale=1.0):
    return (draw(*shape).detach() * scale).bfloat16().double()


@pytest.mark.parametrize("name", ["rms_norm", "lora_linear"])
def test_bfloat16_error_is_the_plain_formulas(name):
    """Against float64 on the same bfloat16 inputs: at most 1.1 times the plain formula's error in bfloat16."""
    weight = rounded(96, 128, scale=0.1)
    fused, plain, inputs = {
        "rms_norm": (lambda x, w: rms_norm(x, w, 1e-3), plain_norm, (rounded(90, 128), rounded(128))),
        "lora_linear": (
            lambda x, a, b: lora_linear(x, weight.to(x.dtype), None, a, b, 0.7),
            lambda x, a, b: plain_lora(x, weight.to(x.dtype), a, b),
            (rounded(90, 128), rounded(8, 128, scale=0.1), rounded(96, 8)),
        ),
    }[name]
    wanted = [True] * len(inputs)
    exact = output_and_gradients(plain, inputs, wanted)
    narrow = [x.bfloat16() for x in inputs]
    for ours, formula, truth in zip(
        output_and_gradients(fused, narrow, wanted),
        output_and_gradients(plain, narrow, wanted),
        exact,
        strict=True,
    ):
        assert ours.dtype == torch.bfloat16
        assert (ours - truth).norm() <= 1.1 * (formula - truth).norm()
