"""Several processes are refused before they disturb each other."""

import pytest

from groundup.errors import UserError
from groundup.machine.process import check_alone


@pytest.mark.parametrize("world", [None, "1", "", "auto"])
def test_one_process_is_as_good_as_none(monkeypatch, world):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    check_alone()


def test_the_first_of_several_says_why_and_the_others_are_quiet(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="4 processes were started") as caught:
        check_alone()
    assert "--nproc-per-node 1" in caught.value.fix
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SystemExit) as ended:
        check_alone()
    assert ended.value.code == 2
