"""Muon: updates near the orthogonal factor, AdamW for the rest, and a state that checkpoints keep."""

import pytest
import torch
from torch import nn

from groundup.config.schema import PretrainSettings, SftSettings
from groundup.engine.muon import RMS_OF_ADAMW, orthogonal
from groundup.engine.optimizer import make_optimizer


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4)])
        self.embed = nn.Embedding(5, 6)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)


def settings(**given):
    return PretrainSettings.model_validate({"from": "shards", "learning_rate": 0.1, **given})


def with_gradients(model):
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    return model


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_orthogonal_brings_every_singular_value_near_one(shape):
    matrix = torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    singular = torch.linalg.svdvals(found)
    assert singular.min() > 0.5 and singular.max() < 1.3
    cosine = torch.cosine_similarity(found.flatten(1), (u @ v).flatten(1))
    assert cosine.min() > 0.97


def test_matrices_of_layers_move_by_muon_and_the_rest_by_adamw():
    ours, adamw = with_gradients(Small()), with_gradients(Small())
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    make_optimizer(ours, settings(weight_decay=0.0)).step()
    make_optimizer(adamw, settings(weight_decay=0.0, optim="adamw_torch")).step()
    plain = dict(adamw.named_parameters())
    for name, p in ours.named_parameters():
        moved = p.detach() - before[name]
        if p.ndim == 2 and "layers" in name:
            expected = -0.1 * RMS_OF_ADAMW * 6**0.5 * orthogonal(plain[name].grad[None])[0]
            torch.testing.assert_close(moved, expected)
        else:
            torch.testing.assert_close(p, plain[name])


def test_decay_is_decoupled():
    one, other = with_gradients(Small()), with_gradients(Small())
    make_optimizer(one, settings(weight_decay=0.0)).step()
    make_optimizer(other, settings(weight_decay=0.5)).step()
    name = "model.layers.0.weight"
    start = dict(Small().named_parameters())["model.layers.0.weight"]
    difference = one.get_parameter(name) - other.get_parameter(name)
    torch.testing.assert_close(difference, 0.1 * 0.5 * start)


def test_momentum_is_kept_where_checkpoints_look():
    model = with_gradients(Small())
    optimizer = make_optimizer(model, settings())
    optimizer.step()
    assert set(optimizer.state[model.get_parameter("model.layers.0.weight")]) == {"momentum_buffer"}
    assert {"exp_avg", "exp_avg_sq", "step"} == set(optimizer.state[model.embed.weight])


def test_an_adapter_is_not_for_muon():
    with pytest.raises(ValueError, match="whole matrices"):
        SftSettings.model_validate({"from": "m", "data": "d.jsonl", "optim": "muon"})
