"""Names that are not there, or not for everybody: what is said, and what to do."""

import pytest

from groundup.errors import UserError
from groundup.hub import find_dataset, resolve_model

MODEL = {"config.json": b"{}", "model.safetensors": b"\x02\0\0\0\0\0\0\0{}"}


def refusal(name="org/tiny"):
    with pytest.raises(UserError) as caught:
        resolve_model(name)
    return caught.value


def test_unknown_name_may_have_been_a_path(hub, online, tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    online.setenv("HF_TOKEN", "hf_mine")
    problem = refusal("my-modle")
    assert "There is no model my-modle" in problem.what
    assert "404" in problem.why
    assert "my-model" in problem.fix


def test_401_may_be_private(hub, online):
    hub.add_model("org/tiny", MODEL)
    hub.private.add("org/tiny")
    problem = refusal()
    assert "private" in problem.why
    assert "HF_TOKEN" in problem.fix
    hub.tokens.add("hf_mine")
    online.setenv("HF_TOKEN", "hf_mine")
    assert resolve_model("org/tiny").kind == "folder"


def test_gated_without_a_token(hub):
    hub.add_model("org/tiny", MODEL)
    hub.gated.add("org/tiny")
    problem = refusal()
    assert "gated" in problem.what
    assert "no token" in problem.why
    assert f"{hub.url}/org/tiny" in problem.fix
    assert "hf auth login" in problem.fix


def test_gated_with_a_token_that_is_not_let_in(hub, online):
    hub.add_model("org/tiny", MODEL)
    hub.gated.add("org/tiny")
    online.setenv("HF_TOKEN", "hf_mine")
    problem = refusal()
    assert "your token" in problem.why
    assert "hf auth login" not in problem.fix
    hub.tokens.add("hf_mine")
    assert resolve_model("org/tiny").kind == "folder"


def test_gated_is_known_before_anything_is_downloaded(hub):
    hub.add_model("org/tiny", MODEL)
    hub.gated.add("org/tiny")
    refusal()
    assert set(hub.fetched) == {"config.json"}
    assert {request.method for request in hub.requests if "resolve" in request.path} == {"HEAD"}


def test_a_token_that_is_not_valid(hub, online):
    hub.add_model("org/tiny", MODEL)
    online.setenv("HF_TOKEN", "hf_old")
    hub.fail(
        "/api/",
        status=401,
        headers={"X-Error-Message": "Invalid credentials in Authorization header"},
        times=9,
    )
    problem = refusal()
    assert "refuses access" in problem.what
    assert "token is not valid" in problem.why


def test_a_data_set_is_called_one(hub):
    hub.gated.add("org/rows")
    hub.add_dataset("org/rows", {"train.jsonl": b"{}\n", "README.md": b""})
    with pytest.raises(UserError, match="The data set org/rows is gated") as caught:
        find_dataset("org/rows")
    assert f"{hub.url}/datasets/org/rows" in caught.value.fix


def test_something_that_is_no_hub(hub):
    hub.add_model("org/tiny", MODEL)
    hub.fail("", body=b"<html>Please log in to this network</html>", times=9)
    problem = refusal()
    assert "not a model hub" in problem.why


def test_no_name_of_a_hub(hub):
    assert "neither a path that exists nor a hub name" in refusal("a--b").what
