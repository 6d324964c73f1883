"""`groundup data inspect` as a person, and as a program, calls it."""

import json
import os
import signal
import time

import pytest

KEYS = [
    "format",
    "verdict",
    "counts",
    "paths",
    "model",
    "kind",
    "recognised",
    "splits",
    "ledger",
    "duplicates",
    "roles",
    "answers_per_row",
    "rows_with_tools",
    "scripts",
    "answer_characters",
    "pairs",
    "length",
    "chat",
    "loss",
    "findings",
    "sampled",
    "rows",
]


def test_the_screen_of_good_conversations(groundup, model, chat_file):
    said = groundup("data", "inspect", chat_file, "--model", model)
    assert said.code == 0 and not said.err
    assert "USABLE" in said.out and "conversations, layout messages" in said.out
    assert "24 read = 24 kept" in said.out
    assert "learned in all 24 rows" in said.out and "[[" in said.out and "\x1b" not in said.out


def test_without_a_model(groundup, pairs_file):
    said = groundup("data", "inspect", pairs_file)
    assert said.code == 0 and "--model M" in said.out and "in characters" in said.out


def test_json_has_its_keys_and_nothing_else_is_on_stdout(groundup, model, pairs_file):
    said = groundup("data", "inspect", pairs_file, "--model", model, "--json", "--rows", 1)
    summary = json.loads(said.out)
    assert list(summary) == KEYS
    assert summary["kind"] == "pairs" and summary["format"] == 1
    assert [side["name"] for side in summary["rows"][0]["sides"]] == ["chosen", "rejected"]


def test_what_is_not_usable_ends_with_1(groundup, base_model, model, chat_file, pair, write):
    assert groundup("data", "inspect", chat_file, "--model", base_model).code == 1
    bad = write("pairs.jsonl", [pair(n) | {"rejected": pair(n)["chosen"]} for n in range(9)])
    said = groundup("data", "inspect", bad, "--model", model)
    assert said.code == 1 and "chosen equals rejected" in said.out and "pairs.jsonl:1, 2, 3" in said.out
    assert "NOT USABLE" in said.out and said.out.count("fix:") == 2


def test_a_run_lends_its_chat_settings(groundup, chain, chat_file):
    said = groundup("data", "inspect", chat_file, "--model", chain.root, "--rows", 1)
    assert said.code == 0 and "Answer in a word." in said.out


def test_another_template(groundup, base_model, chat_file, tmp_path):
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    line = ("data", "inspect", chat_file, "--model", base_model, "--chat-template")
    assert groundup(*line, tmp_path / "chat.jinja").code == 0
    said = groundup(*line, tmp_path / "none.jinja")
    assert said.code == 1 and "cannot be read" in said.out


def test_a_split_is_chosen(groundup, write, conversation, tmp_path):
    (tmp_path / "set").mkdir()
    write("set/train.jsonl", [conversation(n) for n in range(5)])
    write("set/test.jsonl", [conversation(n) for n in range(3)])
    read = [
        json.loads(groundup("data", "inspect", tmp_path / "set", "--json", *more).out)["ledger"]["in"]
        for more in ((), ("--split", "test"))
    ]
    assert read == [5, 3]


def test_misuse(groundup, model, chat_file, write, tmp_path):
    inspect = ("data", "inspect")
    groundup(*inspect, "chats.jsonl").refused("chats.jsonl")
    groundup(*inspect, write("empty.jsonl", "")).refused("empty")
    (tmp_path / "noise.jsonl").write_bytes(bytes(range(256)) * 20)
    groundup(*inspect, tmp_path / "noise.jsonl").refused("noise.jsonl")
    (tmp_path / "nothing").mkdir()
    groundup(*inspect, tmp_path / "nothing").refused("nothing")
    groundup(*inspect, chat_file, "--model", "./modell").refused("modell")
    groundup(*inspect, chat_file, "--columns", "prompt").refused("OURS=THEIRS")
    groundup(*inspect, chat_file, "--columns", "promt=q").refused("prompt")
    groundup(*inspect, chat_file, "--layout", "mesages").refused("did you mean messages?")
    groundup(*inspect).refused("F...")
    groundup(*inspect, write("odd.jsonl", [{"a": 1, "b": "x"}])).refused("odd.jsonl:1")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(groundup, write):
    file = write("rows.jsonl", [{"text": "a"}])
    file.chmod(0)
    groundup("data", "inspect", file).refused("rows.jsonl")


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a child there")
def test_ctrl_c(start, write):
    rows = write(
        "rows.jsonl", [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(300_000)]
    )
    process = start("data", "inspect", rows)
    assert "Reading" in process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in err and "Traceback" not in out + err
