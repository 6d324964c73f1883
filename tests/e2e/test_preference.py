"""Reward models and the DPO family from the command line, as people use them."""

import contextlib
import io
import json
import shutil

import pytest
import torch

from groundup.cli import main
from groundup.store import Run
from groundup.store.files import read_json, read_jsonl

SMALL = (
    "--set",
    "batch_size=4",
    "--set",
    "dtype=float32",
    "--set",
    "logging_steps=1",
    "--set",
    "learning_rate=1e-2",
)
BRIEF = (*SMALL, "--set", "max_steps=3")
QUIET = ("--set", "sample_count=0")


def stage_of(folder, name):
    return Run(folder).stage(name)


@pytest.fixture(scope="module")
def labelled_file(tmp_path_factory):
    rows = [
        {"prompt": f"Name red {i}.", "completion": "red" if i % 2 else "blue blue", "label": i % 2 == 1}
        for i in range(16)
    ]
    path = tmp_path_factory.mktemp("data") / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Reward models.


@pytest.fixture(scope="module")
def reward_runs(tmp_path_factory, model, pairs_file):
    """One with an adapter and one of all weights."""
    folder = tmp_path_factory.mktemp("rewards")
    for name, more in (("lora", ()), ("full", ("--set", "lora=false"))):
        line = ["reward", "--model", model, "--data", pairs_file, *SMALL, "--set", "max_steps=12", *more]
        out = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out):
            assert main([str(word) for word in (*line, "--out", name)]) == 0
        assert "groundup chat" not in out.getvalue()
    return folder


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_reward_model_learns_and_is_reported(reward_runs, kind):
    stage = stage_of(reward_runs / kind, "reward")
    result = read_json(stage.result)
    assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
    assert result["after"]["eval_accuracy"] == 1.0 and result["after"]["eval_margin"] > 0.1
    logged = {name for line in read_jsonl(stage.metrics) for name in line}
    assert {"loss", "accuracy", "margin", "mean_reward", "grad_norm"} <= logged
    page = (reward_runs / kind / "report.md").read_text()
    assert "Reward model" in page and "Pairs scored right" in page


def plain_scores(folder, texts):
    """As anybody would: transformers, its tokenizer, a padded batch."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    full = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    assert full.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        together = full(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
        alone = [
            full(
                input_ids=tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
            ).logits[0, 0]
            for text in texts
        ]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)
    return together.tolist()


def test_what_is_saved_gives_the_stages_own_accuracy(reward_runs, groundup):
    """Whole, or its adapter merged: on the held-out pairs, rendered by the saved tokenizer."""
    from transformers import AutoTokenizer

    said = groundup("merge", "lora", "--out", "merged", cwd=reward_runs)
    assert said.code == 0, said.err
    assert read_json(stage_of(reward_runs / "merged", "merge").result)["max_logit_difference"] < 1e-4
    for kind, folder in (("full", "full/reward/final"), ("lora", "merged/merge/final")):
        stage = stage_of(reward_runs / kind, "reward")
        tokenizer = AutoTokenizer.from_pretrained(reward_runs / folder)
        rows = read_jsonl(stage.data / "heldout.jsonl")
        texts = [
            tokenizer.apply_chat_template(row["prompt"] + row[side], tokenize=False)
            for row in rows
            for side in ("chosen", "rejected")
        ]
        scores = plain_scores(reward_runs / folder, texts)
        margins = [chosen - rejected for chosen, rejected in zip(scores[0::2], scores[1::2], strict=True)]
        after = read_json(stage.result)["after"]
        assert sum(margins) / len(margins) == pytest.approx(after["eval_margin"], abs=1e-4)
        assert sum(margin > 0 for margin in margins) / len(margins) == after["eval_accuracy"]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_reward_model_neither_chats_nor_trains_on(reward_runs, groundup, in_shell, model, pairs_file, kind):
    words = "it scores texts and cannot write any"
    in_shell("chat", kind, cwd=reward_runs, typed="Hi\n").refused(words)
    groundup("eval", kind, "--data", pairs_file, "--out", "e", cwd=reward_runs).refused(words)
    groundup("dpo", "--model", kind, "--data", pairs_file, "--out", "d", cwd=reward_runs).refused(words)
    line = ["dpo", "--model", model, "--data", pairs_file, "--reference", kind, "--out", "d"]
    groundup(*line, cwd=reward_runs).refused(words)


@pytest.mark.slow
def test_margins_change_what_is_learned(model, pairs_file, write, groundup, tmp_path):
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    data = write("margins.jsonl", [{**row, "margin": 3.0} for row in rows])
    losses = []
    for file in (pairs_file, data):
        said = groundup("reward", "--model", model, "--data", file, *BRIEF, "--out", file.stem)
        assert said.code == 0, said.err
        losses.append(read_json(stage_of(tmp_path / file.stem, "reward").result)["before"]["eval_loss"])
    assert losses[1] > losses[0] + 1


def test_a_rehearsal_of_reward_and_merge(model, pairs_file, write, groundup, tmp_path):
    write(
        "r.yaml",
        f"stages:\n  reward: {{from: {model}, data: {pairs_file}, dtype: float32}}\n  merge: {{from: reward}}\n",
    )
    said = groundup("run", "r.yaml", "--rehearse")
    assert said.code == 0 and "The rehearsal went through: reward, merge" in said.out, said.out + said.err


# The DPO family.


@pytest.mark.parametrize(
    ("loss", "settings", "words"),
    [
        pytest.param("hinge", (), "its adapter switched off", marks=pytest.mark.slow),
        ("ipo", ("--set", "lora=false"), "as the stage begins"),
        pytest.param(
            "robust", ("--set", "label_smoothing=0.1"), "its adapter switched off", marks=pytest.mark.slow
        ),
        pytest.param("sigmoid_norm", (), "its adapter switched off", marks=pytest.mark.slow),
        pytest.param(
            "simpo", ("--set", "beta=2.0", "--set", "simpo_gamma=0.3"), None, marks=pytest.mark.slow
        ),
        ("orpo", (), None),
        ("kto", ("--set", "desirable_weight=1.2", "--set", "holdout=0.4"), "its adapter switched off"),
    ],
)
def test_every_loss_trains(model, pairs_file, labelled_file, groundup, tmp_path, loss, settings, words):
    data = labelled_file if loss == "kto" else pairs_file
    line = [
        "dpo",
        "--model",
        model,
        "--data",
        data,
        "--loss",
        loss,
        *BRIEF,
        *QUIET,
        *settings,
        "--out",
        "run",
    ]
    said = groundup(*line)
    assert said.code == 0, said.out + said.err
    stage = stage_of(tmp_path / "run", "dpo")
    result = read_json(stage.result)
    assert ("reference: " in said.out) == (words is not None)
    assert words is None or words in result["plan"]["reference"]
    before, after = result["before"], result["after"]
    assert after["eval_loss"] < before["eval_loss"] + 1e-4
    assert after["eval_rewards/margins"] > before["eval_rewards/margins"]
    if words:
        assert before["eval_rewards/margins"] == 0.0, "the policy is its reference, to the bit"
    if loss == "kto":
        lines = read_jsonl(stage.metrics)
        assert lines[0]["eval_kl"] == 0.0 and any(line.get("kl", 0) > 0 for line in lines)
        assert "KL" in (tmp_path / "run" / "report.md").read_text()
    assert list((tmp_path / "run").glob("reference_logps/*.json")) if words else True


def test_the_reference_is_computed_once_for_stages_and_runs_with_the_same_content(
    model, pairs_file, write, groundup, tmp_path
):
    common = (
        f"from: {model}, data: {pairs_file}, batch_size: 4, max_steps: 2, dtype: float32, sample_count: 0"
    )
    write(
        "r.yaml",
        f"stages:\n  a: {{kind: dpo, {common}}}\n  b: {{kind: dpo, loss: ipo, {common}}}\n",
    )
    said = groundup("run", "r.yaml")
    assert said.code == 0, said.err
    assert said.out.count("the reference's log-probabilities are known already") == 1
    assert len(list((tmp_path / "runs/r/reference_logps").glob("*.json"))) == 1
    again = groundup("run", "r.yaml", "--set", "a.beta=0.3", "--set", "b.beta=0.3")
    assert again.out.count("known already") == 2
    other = groundup("run", "r.yaml", "--set", "seed=5")
    assert other.code == 0 and other.out.count("known already") == 1, "other rows make up the steps"


def test_a_reference_named_by_its_stage(chain_text, copy_of_chain, write, groundup):
    """DPO goes on with SFT's adapter. Held to the base instead, it begins with a distance, the adapter switched off."""
    named = chain_text.replace("    from: sft\n", "    from: sft\n    reference: base\n")
    model = next(
        line.split(": ")[1] for line in chain_text.splitlines() if line.strip().startswith("from: /")
    )
    write("chain.yaml", named.replace("reference: base", f"reference: {model}"))
    said = groundup("run", "chain.yaml", "--until", "dpo")
    assert said.code == 0 and "its adapter switched off" in said.out, said.out + said.err
    result = read_json(copy_of_chain.root / "dpo" / "result.json")
    assert abs(result["before"]["eval_rewards/chosen"]) > 1e-3
    write("chain.yaml", named.replace("reference: base", "reference: sft"))
    said = groundup("run", "chain.yaml", "--until", "dpo")
    assert "as the stage begins" in said.out
    assert read_json(copy_of_chain.root / "dpo" / "result.json")["before"]["eval_rewards/chosen"] == 0.0


def test_a_run_that_goes_on_compares_with_what_it_began_with(copy_of_chain, chain, groundup, tmp_path):
    """All weights are trained in memory, from an adapter on: neither a checkpoint nor an empty cache moves it."""
    text = copy_of_chain.recipe.read_text().replace("    from: sft\n", "    from: sft\n    lora: false\n")
    copy_of_chain.recipe.write_text(text.replace("max_steps: 3", "max_steps: 4\n    save_steps: 2"))
    assert groundup("run", "chain.yaml", "--until", "dpo").code == 0
    stage = stage_of(copy_of_chain.root, "dpo")
    whole = read_jsonl(stage.metrics)
    assert whole[0]["eval_rewards/margins"] == 0.0
    (kept,) = {path.read_text() for path in stage_of_reference(copy_of_chain.root, stage)}
    stage.manifest.unlink()
    shutil.rmtree(stage.final)
    shutil.rmtree(stage.root / "checkpoint-000004")
    shutil.rmtree(copy_of_chain.root / "reference_logps")
    said = groundup("run", "chain.yaml", "--until", "dpo")
    assert said.code == 0 and "going on from checkpoint-000002" in said.out
    (again,) = {path.read_text() for path in stage_of_reference(copy_of_chain.root, stage)}
    assert again == kept
    for one, two in zip(read_jsonl(stage.metrics), whole, strict=True):
        assert one.get("rewards/margins") == two.get("rewards/margins")
        assert one.get("eval_rewards/margins") == two.get("eval_rewards/margins")


def stage_of_reference(root, stage):
    """The cache of this stage's beginning: the newest file."""
    return [max((root / "reference_logps").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)]


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        (
            [{"prompt": f"q {i}", "completion": "a", "label": True} for i in range(4)],
            ["--loss", "kto"],
            ["label true"],
        ),
        ([{"prompt": f"q {i}", "completion": "a"} for i in range(4)], ["--loss", "kto"], ["no label"]),
        (
            [{"prompt": f"q {i}", "completion": "a", "label": "good"} for i in range(4)],
            ["--loss", "kto"],
            ["'label'"],
        ),
        ([{"prompt": f"q {i}", "completion": "a", "label": i % 2 == 0} for i in range(4)], [], ["loss: kto"]),
        (
            [{"prompt": f"q {i}", "chosen": "a", "rejected": None if i else "b"} for i in range(4)],
            [],
            ["'rejected' is null"],
        ),
        (
            [{"prompt": f"q {i}", "chosen": "a", "rejected": "a"} for i in range(4)],
            [],
            ["chosen equals rejected"],
        ),
        ([{"prompt": f"q {i}", "chosen": "a"} for i in range(4)], [], ["rejected"]),
    ],
)
def test_rows_that_teach_nothing(model, write, groundup, rows, line, words):
    data = write("bad.jsonl", rows)
    groundup("dpo", "--model", model, "--data", data, *line, "--out", "run").refused(*words)


def test_a_reference_that_is_no_model(model, pairs_file, groundup, tmp_path):
    line = ["dpo", "--model", model, "--data", pairs_file, "--out", "run"]
    groundup(*line, "--reference", "./nowhere").refused("nowhere")
    groundup(*line, "--loss", "simpo", "--reference", model).refused(
        "reference does nothing with loss: simpo"
    )
    assert not (tmp_path / "run").exists()
