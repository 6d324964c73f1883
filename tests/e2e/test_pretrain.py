"""From raw text to a base model: a folder of text, rows of a .jsonl, and the verb without a recipe."""

import contextlib
import json
import random

import pytest
import torch

from groundup.cli import main
from groundup.infer import load_for_inference
from groundup.store.files import read_json, read_jsonl
from groundup.tokenizer import TokenShards

TINY = [
    "--set=vocab_size=400",
    "--set=architecture.hidden_size=32",
    "--set=architecture.intermediate_size=48",
    "--set=architecture.num_hidden_layers=2",
    "--set=pretrain.max_length=64",
    "--set=batch_tokens=512",
    "--set=max_steps=6",
    "--set=dtype=float32",
    "--set=clean.holdout=0.25",
]
SENTENCE = "the river runs under an old stone bridge and nobody knows where it ends because maps are wrong"


def text(number: int) -> str:
    return " ".join(random.Random(number).choices(SENTENCE.split(), k=60)).capitalize() + "."


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Ten files, one of them twice and one too short."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(10):
        place = folder / ("deeper" if number % 2 else ".")
        place.mkdir(exist_ok=True)
        (place / f"{number}.txt").write_text(text(number), encoding="utf-8")
    (folder / "again.md").write_text(text(0))
    (folder / "short.txt").write_text("Too short.")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory, texts):
    """A run of the verb over the folder."""
    folder = tmp_path_factory.mktemp("base")
    with contextlib.chdir(folder):
        assert main(["pretrain", "--data", str(texts), *TINY]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_every_document_is_accounted_for(base):
    result = read_json(base / "clean" / "result.json")
    rows = result["rows"]
    assert (rows["in"], rows["kept"], rows["deduplicated"]) == (12, 10, 1)
    assert list(rows["filtered"].values()) == [1]
    assert sum(result["documents"].values()) == 10 and min(result["documents"].values()) > 0
    parts = [read_jsonl(base / "clean" / "data" / f"{part}.jsonl") for part in ("train", "heldout")]
    assert sorted(row["text"] for rows in parts for row in rows) == sorted(
        text(number) for number in range(10)
    )


def test_the_shards_hold_every_text(base):
    from groundup.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(base / "shards" / "final")
    assert 300 < len(tokenizer) == read_json(base / "tokenizer" / "result.json")["vocab_size"] <= 400
    for part in ("train", "heldout"):
        shards = TokenShards(base / "shards" / "data" / part)
        rows = read_jsonl(base / "clean" / "data" / f"{part}.jsonl")
        read = [tokenizer.decode(shards.document(i), skip_special_tokens=True) for i in range(len(shards))]
        assert read == [row["text"] for row in rows]


def test_the_base_model(base):
    result = read_json(base / "pretrain" / "result.json")
    assert result["steps"] == 6
    assert result["after"]["eval_bits_per_byte"] < result["before"]["eval_bits_per_byte"]
    assert set(result["baselines"]) == {"gzip", "xz"} and all(
        value > 0 for value in result["baselines"].values()
    )
    assert all(sample["after"] for sample in result["samples"])
    before, after = [line for line in read_jsonl(base / "pretrain" / "metrics.jsonl") if "eval_loss" in line]
    assert (before["step"], after["step"]) == (0, 6)
    assert "gzip" in (base / "report.html").read_text()


def test_others_open_the_base_model(base):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    final = base / "pretrain" / "final"
    tokenizer = AutoTokenizer.from_pretrained(final)
    token = torch.tensor(tokenizer("The river runs")["input_ids"])
    assert token[0] == tokenizer.bos_token_id
    theirs = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32)
    assert theirs.config.tie_word_embeddings and theirs.config.max_position_embeddings == 64
    with torch.no_grad():
        expected = theirs(input_ids=token[None]).logits[0]
    ours = load_for_inference(str(base), dtype="float32").model
    torch.testing.assert_close(ours.logits(token).float(), expected, atol=1e-4, rtol=0)


def test_rows_instead_of_a_folder(texts, groundup, write, tmp_path):
    """The same texts as rows of a column with another name: the same documents."""
    rows = write("notes.jsonl", [{"body": text(number)} for number in range(10)])
    recipe = f"""stages:
  clean:
    data: {{path: {rows}, columns: {{text: body}}}}
    holdout: 0.25
  tokenizer: {{from: clean, vocab_size: 400}}
  shards: {{from: clean, tokenizer: tokenizer}}
  pretrain:
    from: shards
    architecture: {{model_type: qwen3, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, head_dim: 16}}
    max_length: 64
    batch_tokens: 256
    max_minutes: 0.01
    dtype: float32
    sample_prompts: [The]
"""
    write("notes.yaml", recipe)
    said = groundup("run", "notes.yaml")
    assert said.code == 0, said.err
    result = read_json(tmp_path / "runs" / "notes" / "pretrain" / "result.json")
    assert result["plan"]["total_steps_reason"].startswith(("max_minutes", "num_train_epochs"))
    assert read_json(tmp_path / "runs" / "notes" / "clean" / "result.json")["documents"]["heldout"] > 0

    other = groundup("run", "notes.yaml", "--set", "seed=5")
    assert other.code == 0 and other.out.count("already done") == 3, "only training draws random numbers"


def test_more_training_from_the_base_model(base, groundup, write, tmp_path):
    """`model` instead of `architecture`, with the model's own tokenizer."""
    from transformers import AutoTokenizer

    rows = write("more.jsonl", [{"text": text(number)} for number in range(50, 58)])
    recipe = f"""stages:
  clean: {{data: {rows}, holdout: 0.25}}
  shards: {{from: clean, tokenizer: {base / "tokenizer" / "final"}}}
  pretrain: {{from: shards, model: {base}, max_length: 64, batch_tokens: 256, max_steps: 2, dtype: float32}}
"""
    write("more.yaml", recipe)
    said = groundup("run", "more.yaml")
    assert said.code == 0, said.err
    old = read_json(base / "pretrain" / "result.json")["before"]["eval_loss"]
    assert read_json(tmp_path / "runs" / "more" / "pretrain" / "result.json")["before"]["eval_loss"] < old
    said = groundup("run", "more.yaml", "--set", "pretrain.max_length=65")
    said.refused("beyond the model's context (64)", "at most 64")

    longer = AutoTokenizer.from_pretrained(base / "tokenizer" / "final")
    longer.add_tokens([f"<new {number}>" for number in range(300)])
    longer.save_pretrained(tmp_path / "longer")
    said = groundup("run", "more.yaml", "--set", f"shards.tokenizer={tmp_path / 'longer'}", "--out", "other")
    said.refused(f"the tokenizer has {len(longer):,} tokens", "stages.pretrain.model")


def test_chat_continues_a_text(base, in_shell):
    said = in_shell("chat", base, "--max-new-tokens", "5", "--temperature", "0", typed="The river\nexit\n")
    assert said.code == 0, said.err
    assert said.out.startswith("The river")
    assert "no chat template" in said.err


def test_a_base_model_is_no_start_for_conversations(base, chat_file, groundup, write, tmp_path):
    """Unless the recipe brings a template, which is then saved with the model."""
    from transformers import AutoTokenizer

    line = ["sft", "--model", base, "--data", chat_file, "--set", "max_steps=1", "--set", "dtype=float32"]
    groundup(*line).refused("no chat template", "chat.chat_template")
    template = write("t.jinja", "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eos|>{% endfor %}")
    said = groundup(
        *line, "--set", f"chat.chat_template={template}", "--set", "max_length=2048", "--out", "tuned"
    )
    said.refused("context ends at 64")
    short = write("short.jsonl", [{"prompt": f"Say {i}", "completion": f"{i}"} for i in range(9)])
    line[4] = short
    said = groundup(
        *line, "--set", f"chat.chat_template={template}", "--set", "holdout=0.3", "--out", "tuned"
    )
    assert said.code == 0, said.err
    saved = AutoTokenizer.from_pretrained(tmp_path / "tuned" / "sft" / "final")
    assert saved.chat_template == template.read_text()
    template.unlink()
    assert load_for_inference(str(tmp_path / "tuned"), dtype="float32").has_template
    recipe = f"""stages:
  clean:
    data: {{path: {short}, columns: {{text: prompt}}}}
    min_chars: 0
    holdout: 0.4
  shards: {{from: clean, tokenizer: {base / "tokenizer" / "final"}}}
  pretrain: {{from: shards, model: tuned, max_length: 64}}
"""
    write("more.yaml", recipe)
    groundup("run", "more.yaml").refused("'tuned' is an adapter", "groundup merge")


MIXED = """\
stages:
  clean:
    mix:
      - {{path: {texts}, weight: 3}}
      - {{path: {rows}, weight: 1}}
    workers: 2
    holdout: 0.25
    near_duplicates: {{threshold: 0.8}}
  tokenizer: {{from: clean, vocab_size: 400}}
  shards: {{from: clean, tokenizer: tokenizer}}
  pretrain:
    from: shards
    architecture: {{hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2}}
    max_length: 64
    batch_tokens: 512
    dtype: float32
"""


def test_a_mixture_is_rehearsed(texts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text(number)} for number in range(100, 120)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mixed.yaml").write_text(MIXED.format(texts=texts, rows=tmp_path / "rows.jsonl"))
    assert main(["run", "mixed.yaml", "--rehearse"]) == 0
    said = capsys.readouterr().out
    assert "The rehearsal went through: clean, tokenizer, shards, pretrain" in said
    assert "documents left out" in said
    assert not (tmp_path / "runs").exists()
