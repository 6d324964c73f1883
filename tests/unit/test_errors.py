import pickle

import pytest

from groundup.errors import UserError


def test_render_gives_place_reason_and_remedy():
    error = UserError("Row 3 has no answer.", where="pairs.jsonl:3", why="`chosen` is empty.", fix="Fill it.")
    assert error.render().splitlines() == [
        "Error: Row 3 has no answer.",
        "  where: pairs.jsonl:3",
        "  why:   `chosen` is empty.",
        "  fix:   Fill it.",
    ]


def test_render_leaves_out_what_is_not_known_and_keeps_lines_under_each_other():
    assert UserError("First.\nSecond.", fix="Do this.\nThen that.").render().splitlines() == [
        "Error: First.",
        "  Second.",
        "  fix:   Do this.",
        "         Then that.",
    ]


def test_text_of_the_exception_loses_nothing():
    with pytest.raises(ValueError, match=r"(?s)broken.*a\.yaml:1.*mend it"):
        raise UserError("broken", where="a.yaml:1", fix="mend it")


def test_survives_pickling():
    error = pickle.loads(pickle.dumps(UserError("a", where="b", why="c", fix="d")))
    assert error.render() == UserError("a", where="b", why="c", fix="d").render()
