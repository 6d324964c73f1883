"""Held-out numbers against sums worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from groundup.batch import Chain, Record, Stats, pack_step
from groundup.eval import bits_per_byte, evaluate_records, packed_rows, record_logps
from groundup.objective import Dpo, LanguageModeling


class Table(nn.Module):
    """The log-probability of a token is minus one hundredth of its id; it notes in which mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def forward(self, batch, needs):
        self.asked.append((self.training, torch.is_grad_enabled()))
        return Stats(logp_N=-batch.target_N.float() / 100)


def chain(token, prompt):
    return Chain(np.array(token, dtype=np.int32), np.arange(len(token)) >= prompt)


def text(index, token):
    return Record(index, (chain(token, 1),))


def pair(index, prompt, chosen, rejected, ref=(-0.5, -0.25)):
    sides = tuple(chain(prompt + side, len(prompt)) for side in (chosen, rejected))
    return Record(index, sides, {"ref_logp": ref})


TEXTS = [text(0, [1, 10, 20]), text(1, [2, 30]), text(2, [3, 40, 50, 60])]


@pytest.mark.parametrize("row_tokens", [3, 100])
def test_the_loss_is_the_mean_over_all_tokens_however_they_are_packed(row_tokens):
    model = Table().train()
    found = evaluate_records(
        model, TEXTS, LanguageModeling(), row_tokens=row_tokens, layout="shared", device="cpu", title=""
    )
    assert found == {"eval_loss": pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6) / 6)}
    assert set(model.asked) == {(False, False)}, "no dropout, no gradients"
    assert model.training


def test_a_record_longer_than_a_row_has_a_row_of_its_own():
    """Rows are planned for the training part, and a held-out record may be longer than all of that."""
    found = evaluate_records(
        Table(), TEXTS, LanguageModeling(), row_tokens=2, layout="shared", device="cpu", title=""
    )
    assert found == {"eval_loss": pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6) / 6)}
    assert [len(row.token_T) for row in packed_rows(TEXTS, 2, "shared")] == [3, 3]


def test_pairs():
    records = [pair(0, [1, 2], [10, 20], [90]), pair(1, [1, 2], [80], [30, 40])]
    found = evaluate_records(
        Table(), records, Dpo(0.1), row_tokens=9, layout="shared", device="cpu", title=""
    )
    rewards = [(0.1 * (-0.3 + 0.5), 0.1 * (-0.9 + 0.25)), (0.1 * (-0.8 + 0.5), 0.1 * (-0.7 + 0.25))]
    margins = [chosen - rejected for chosen, rejected in rewards]
    assert found["eval_rewards/chosen"] == pytest.approx((rewards[0][0] + rewards[1][0]) / 2)
    assert found["eval_rewards/rejected"] == pytest.approx((rewards[0][1] + rewards[1][1]) / 2)
    assert found["eval_rewards/margins"] == pytest.approx(sum(margins) / 2)
    assert found["eval_rewards/accuracies"] == sum(margin > 0 for margin in margins) / 2
    assert found["eval_logps/chosen"] == pytest.approx(-0.55)
    assert found["eval_loss"] == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 2)


def test_every_record_is_evaluated_once_in_order():
    records = [text(index, [1, 2 + index % 5]) for index in range(150)]
    seen = [int(r) for row in packed_rows(records, 7, "shared") for r in row.record_Q]
    assert sorted(seen) == list(range(150))


def test_log_probabilities_by_record():
    records = [pair(4, [1, 2], [10, 20], [90]), pair(2, [1], [80], [30, 40])]
    model = Table()
    found = record_logps(model, pack_step(records, 50), device="cpu", total=2, title="")
    assert found.keys() == {2, 4}
    assert found[4] == pytest.approx((-0.3, -0.9)) and found[2] == pytest.approx((-0.8, -0.7))
    assert set(model.asked) == {(False, False)} and model.training


def test_a_record_twice_in_a_step_has_its_two_numbers_once():
    """A step across the end of an epoch, or a batch larger than the data."""
    twice = pair(3, [1, 2], [10, 20], [90])
    found = record_logps(Table(), pack_step([twice, twice], 50), device="cpu", total=2, title="")
    assert found == {3: pytest.approx((-0.3, -0.9))}


def test_bits_per_byte_of_a_model_that_knows_only_the_vocabulary():
    """Byte tokens at log 256 nats each are 8 bits a byte; tokens of four bytes at the same cost are 2."""
    assert bits_per_byte(math.log(256), tokens=1000, total_bytes=1000) == pytest.approx(8.0)
    assert bits_per_byte(math.log(256), tokens=250, total_bytes=1000) == pytest.approx(2.0)
    assert bits_per_byte(math.log(2), tokens=3, total_bytes=1) == pytest.approx(3.0)
