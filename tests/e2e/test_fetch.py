"""`groundup fetch`: everything from hubs before the network goes; and what goes wrong there, before anything trains."""

import json

import pytest

RECIPE = """\
name: away
stages:
  clean:
    data: {path: org/text, config: small}
    decontaminate: [org/exam]
  tokenizer: {from: clean, vocab_size: 300, compare_with: [org/tiny, org/words]}
  sft:
    from: org/adapter
    lora: {r: 4, lora_alpha: 8}
    data: org/chats
    eval_data: {path: org/chats, split: test}
    max_steps: 1
    batch_size: 4
    dtype: float32
    sample_count: 0
  merge: {from: sft}
"""
CARD = """\
---
configs:
- config_name: small
  data_files: [{split: train, path: small/train.jsonl}]
- config_name: large
  data_files: [{split: train, path: large/train.jsonl}]
---
"""


@pytest.fixture
def hub(loopback_hub, model, chat_file, conversation):
    """The models and data that RECIPE names."""
    rows = "".join(
        json.dumps({"text": f"{i} is a number that stands in a row of numbers. " * 3}) + "\n"
        for i in range(90)
    )
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    loopback_hub.add_model("org/tiny", files)
    loopback_hub.add_model("org/words", files)
    other = "".join(json.dumps(conversation(i)) + "\n" for i in range(100, 110))
    loopback_hub.add_dataset(
        "org/chats", {"data/train.jsonl": chat_file.read_bytes(), "data/test.jsonl": other.encode()}
    )
    text = {"README.md": CARD.encode(), "small/train.jsonl": rows.encode(), "large/train.jsonl": b"x" * 10**6}
    loopback_hub.add_dataset("org/text", text)
    loopback_hub.add_dataset("org/exam", {"test.jsonl": b'{"question": "Is seven a number at all?"}\n'})
    return loopback_hub


@pytest.fixture
def recipe(hub, chain, write):
    """The recipe; its adapter is the one that another run trained, on a base of the hub."""
    adapter = {path.name: path.read_bytes() for path in (chain.root / "sft/final").iterdir()}
    config = json.loads(adapter["adapter_config.json"]) | {"base_model_name_or_path": "org/tiny"}
    hub.add_model("org/adapter", adapter | {"adapter_config.json": json.dumps(config).encode()})
    return write("away.yaml", RECIPE)


def test_fetch_then_run_without_a_network(recipe, hub, groundup, in_shell, online):
    listed = groundup("fetch", recipe, "--dry-run")
    assert listed.code == 0, listed.err
    for kind, name in (("model", "org/adapter"), ("model", "org/tiny"), ("data set", "org/chats")):
        assert any(kind in line and name in line for line in listed.out.splitlines())
    assert "to download" in listed.out
    assert set(hub.fetched) <= {"README.md", "adapter_config.json"}

    done = groundup("fetch", recipe)
    assert done.code == 0, done.err
    assert "HF_HUB_OFFLINE=1" in done.out
    assert "model.safetensors" in hub.fetched
    assert "large/train.jsonl" not in hub.fetched
    of_tiny = [path for path in hub.asked if path.startswith("/org/tiny/resolve")]  # a tokenizer, and a base
    assert len(of_tiny) == len(set(of_tiny)) > 3

    hub.requests.clear()
    again = groundup("fetch", recipe)
    assert "Everything was here already" in again.out
    assert not hub.fetched

    online.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    ran = in_shell("run", recipe)
    assert ran.code == 0, ran.out + ran.err
    assert not hub.requests


def test_a_fetch_that_was_cut_off_goes_on(recipe, hub, groundup):
    hub.fail("org/tiny/.*/model.safetensors", cut_bytes=1000)
    hub.fail("org/tiny/.*/model.safetensors", status=500, times=99)
    groundup("fetch", recipe).refused("model.safetensors of org/tiny", "500")
    hub.faults.clear()
    hub.requests.clear()
    assert groundup("fetch", recipe).code == 0
    ranges = [request.headers.get("Range") for request in hub.requests if "tiny" in request.path]
    assert "bytes=1000-" in ranges


def test_nothing_is_needed(groundup, write, model, chat_file):
    file = write("here.yaml", f"stages: {{sft: {{from: {model}, data: {chat_file}}}}}")
    assert "needs nothing from a hub" in groundup("fetch", file).out


@pytest.mark.parametrize("verb", ["fetch", "run"])
class TestBadInput:
    """Clear errors before anything trains, and before anything large is downloaded."""

    def check(self, groundup, hub, verb, recipe, changes, *told):
        groundup(verb, recipe, *(f"--set={change}" for change in changes)).refused(*told)
        assert not [file for file in hub.fetched if file.endswith(("train.jsonl", "model.safetensors"))]

    def test_a_name_on_no_endpoint(self, groundup, hub, verb, write):
        file = write("r.yaml", "stages: {sft: {from: org/tinny, data: org/chats}}")
        self.check(groundup, hub, verb, file, [], "There is no model org/tinny", hub.url, "stage sft")

    def test_a_disk_too_small(self, groundup, hub, verb, write):
        hub.sizes["model.safetensors"] = 10**18
        file = write("r.yaml", "stages: {sft: {from: org/tiny, data: org/chats}}")
        self.check(groundup, hub, verb, file, [], "too little disk space for org/tiny", "HF_HOME")

    def test_a_gated_model_without_a_token(self, groundup, hub, verb, write):
        hub.gated.add("org/tiny")
        file = write("r.yaml", "stages: {sft: {from: org/tiny, data: org/chats}}")
        self.check(groundup, hub, verb, file, [], "org/tiny is gated", f"{hub.url}/org/tiny", "hf auth login")

    def test_a_split_or_configuration_that_is_not_there(self, groundup, hub, verb, write):
        file = write("r.yaml", "stages: {clean: {data: {path: org/text, config: small}}}")
        self.check(
            groundup,
            hub,
            verb,
            file,
            ["clean.data.config=tiny"],
            "no configuration tiny",
            "it has small, large",
        )
        self.check(
            groundup, hub, verb, file, ["clean.data.split=test"], "There is no split test", "are train"
        )


def test_a_proxy_is_told_of_once(groundup, copy_of_chain, online):
    online.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    online.delenv("NO_PROXY", raising=False)
    line = ("run", copy_of_chain.recipe, "--out", copy_of_chain.root, "--only", "sft")
    assert groundup(*line, cwd=copy_of_chain.folder).err.count("HTTPS_PROXY is on") == 1
    online.setenv("NO_PROXY", "localhost,127.0.0.1")
    assert "HTTPS_PROXY" not in groundup(*line, cwd=copy_of_chain.folder).err
