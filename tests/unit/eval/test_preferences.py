"""Margins of pairs by hand, and what lengths have to do with them."""

import numpy as np
import pytest

from groundup.eval.preferences import PairLogps, diagnose, margins


def said(chosen, rejected, chosen_tokens=(2, 4, 5), rejected_tokens=(4, 2, 5)):
    numbers = (np.array(side, dtype=np.float64) for side in (chosen, rejected))
    return PairLogps(*numbers, np.array(chosen_tokens), np.array(rejected_tokens))


POLICY = said([-1.0, -8.0, -5.0], [-2.0, -2.0, -5.0])
REFERENCE = said([-3.0, -7.0, -5.0], [-1.0, -6.0, -4.0])


def test_without_a_reference():
    assert margins(POLICY).tolist() == [1.0, -6.0, 0.0]
    assert margins(POLICY, per_token=True).tolist() == [-1 / 2 + 2 / 4, -8 / 4 + 2 / 2, 0.0]


def test_signs_of_the_reward():
    """What became likelier than it was in the reference is rewarded; what became less likely is not."""
    by_hand = [(-1 + 3) - (-2 + 1), (-8 + 7) - (-2 + 6), (-5 + 5) - (-5 + 4)]
    assert margins(POLICY, REFERENCE).tolist() == by_hand == [3.0, -5.0, 1.0]
    assert margins(POLICY, REFERENCE, beta=0.1).tolist() == pytest.approx([0.3, -0.5, 0.1])
    assert margins(REFERENCE, POLICY).tolist() == [-3.0, 5.0, -1.0]
    assert margins(POLICY, POLICY).tolist() == [0.0, 0.0, 0.0]
    assert margins(POLICY, REFERENCE, per_token=True).tolist() == [2 / 2 + 1 / 4, -1 / 4 - 4 / 2, 1 / 5]


def test_the_diagnosis():
    found = diagnose(np.array([3.0, -5.0, 1.0]), POLICY)
    assert found.margin == pytest.approx(-1 / 3)
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.accuracy_chosen_longer == 0.0, "the second pair"
    assert found.accuracy_chosen_shorter == 1.0, "the first pair"
    assert found.length_correlation == pytest.approx(np.corrcoef([3, -5, 1], [-2, 2, 0])[0, 1])
    assert found.length_correlation < -0.9, "shorter answers win"


def test_what_no_pair_can_say_is_not_said():
    same = said([-1.0], [-2.0], chosen_tokens=[3], rejected_tokens=[3])
    found = diagnose(margins(same), same)
    assert found.accuracy == 1.0
    assert (found.accuracy_chosen_longer, found.accuracy_chosen_shorter, found.length_correlation) == (
        None,
    ) * 3
    assert diagnose(np.zeros(3), POLICY).length_correlation is None
