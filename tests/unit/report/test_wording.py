"""Numbers as people read them."""

import pytest

from groundup.report import wording


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3, "3"),
        (1234567.8, "1,234,568"),
        (131.72, "131.7"),
        (-48.2, "−48.20"),
        (1.3214, "1.321"),
        (0.0002, "0.0002"),
        (-2.5e-05, "−2.5e-05"),
    ],
)
def test_digits(number, text):
    assert wording.digits(number) == text


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("eval_loss", 2.0, 1.5, ("−0.500", "better")),
        ("loss", 1.5, 2.0, ("+0.500", "worse")),
        ("eval_rewards/accuracies", 0.5, 0.75, ("+25.0 points", "better")),
        ("logps/chosen", -2.0, -3.0, ("−1", "")),
        ("loss", 1.0, 1.0, ("±0", "")),
        ("preference_accuracy", 0.5, 0.50001, ("±0", "")),
        ("loss", None, 1.0, ("", "")),
    ],
)
def test_changes_and_their_verdicts(name, before, after, expected):
    assert wording.change(name, before, after) == expected


def test_values_and_headings():
    assert wording.value("eval_rewards/accuracies", 0.975) == "97.5%"
    assert wording.value("loss", None) == "–"
    assert wording.metric("eval_loss").heading == "Loss ↓"
    assert wording.metric("eval_some_thing").heading == "some thing"
    assert [wording.size(n) for n in (12, 3_400_000)] == ["12 bytes", "3.4 MB"]


def test_one_of_several_rewards_has_its_own_name():
    assert wording.metric("eval_rewards/sentiment/mean").heading == "Reward sentiment ↑"
    assert wording.metric("rewards/my/own/std").heading == "Spread of reward my/own"
    assert wording.metric("rewards/margins").heading == "Preference margin ↑"
