"""KTO's mismatched answers, and the numbers that a step is given before it trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from groundup.batch import Chain, Record, Stream, segment_tokens
from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_labelled
from groundup.data.types import Conversation
from groundup.errors import UserError
from groundup.eval import logps_by_record
from groundup.machine.plan import Plan
from groundup.model import BaseLLM, ModelConfig, initialize
from groundup.objective import Kto as Loss
from groundup.stages.preference import columned, compared, mismatched, timed_as_trained
from groundup.stages.reference import Reference
from groundup.stages.rows import as_row, read_rows
from groundup.stages.training import Material
from groundup.store.files import read_jsonl

PLAN = Plan("cpu", "float32", "", {}, 1, "shared", "", 40, False, 0, 0, 3, "")


def record(index, prompt, answer, label=None):
    token = np.array([*prompt, *answer], dtype=np.int32)
    group = {} if label is None else {"label": float(label)}
    return Record(index, (Chain(token, np.arange(len(token)) >= len(prompt)),), group=group)


def test_a_prompt_gets_the_answer_before_it():
    made = [record(0, [1, 2], [3, 4, 5]), record(1, [6], [7]), record(2, [8, 9], [10, 11])]
    found = [one.chains[0] for one in mismatched(made, 100)]
    assert [chain.token.tolist() for chain in found] == [[1, 2, 10, 11], [6, 3, 4, 5], [8, 9, 7]]
    assert [int(chain.scored.sum()) for chain in found] == [2, 3, 1]
    cut = [one.chains[0] for one in mismatched(made, 3)]
    assert [chain.token.tolist() for chain in cut] == [[1, 2, 10], [6, 3, 4], [8, 9, 7]]


def tiny():
    raw = {"model_type": "llama", "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24}
    raw |= {"num_hidden_layers": 1, "num_attention_heads": 4, "initializer_range": 0.4}
    return initialize(BaseLLM(ModelConfig.from_hf(raw)), 0)


@pytest.fixture
def kto(context):
    """Material of a KTO stage of 8 rows in steps of 4, ready to train; and its held-out rows."""
    stage = context(
        {"dpo": {"from": "m", "data": "d.jsonl", "loss": "kto", "batch_size": 4, "lora": False}}, "dpo"
    )
    rows = columned(
        stage.settings, [record(i, [1, 2 + i], [3 + i, 4 + i][: 1 + i % 2], i % 2) for i in range(12)]
    )
    train, heldout = rows[:8], rows[8:]
    sizes = np.array([segment_tokens(one, "shared") for one in train])
    stream = Stream(np.ones(8, dtype=np.int64), 4, seed=3)
    material = Material(stream, sizes, lambda ids: [train[i] for i in ids], Loss(0.1), "shared", 4)
    model = tiny()
    return (
        stage,
        model,
        *compared(stage, Reference("start", ""), model, material, PLAN, train, heldout),
        material,
    )


def test_the_kl_is_zero_at_first_and_follows_the_model(kto):
    """Over the whole step, without gradient, never below zero; and the same for each record of the step."""
    _, model, material, heldout, _ = kto
    ids = material.stream.records_of(0).tolist()
    first = material.records(ids)
    assert {one.group["kl"] for one in first} == {0.0}
    assert {one.group["kl"] for one in heldout()} == {0.0}
    before = logps_by_record(model, material_rows(mismatched(first, 4)), "cpu")
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    after = logps_by_record(model, material_rows(mismatched(first, 4)), "cpu")
    expected = max(0.0, float(np.mean([after[i][0] - before[i][0] for i in ids])))
    (kl,) = {one.group["kl"] for one in material.records(ids)}
    assert kl == pytest.approx(expected, abs=1e-6)
    assert all(
        one.sequence["ref_logp"] == two.sequence["ref_logp"] for one, two in zip(first, material.records(ids))
    )
    signs = []
    for scale in (2.0, 0.1):
        with torch.no_grad():
            model.lm_head.weight.mul_(scale)
        signs.append(material.records(ids)[0].group["kl"])
    assert min(signs) == 0.0 or min(signs) > 0, signs
    assert all(kl >= 0 for kl in signs) and not any(p.grad is not None for p in model.parameters())


def material_rows(records):
    from groundup.batch import pack_step

    return pack_step(records, 100)


def test_every_step_finds_its_reference(kto):
    """All pairs of prompt and answer that any step makes were asked beforehand."""
    stage, _, material, _, _ = kto
    for step in range(PLAN.total_steps):
        assert len(material.records(material.stream.records_of(step).tolist())) == 4
    (path,) = stage.run.reference_logps.glob("*.json")
    assert path.stat().st_size > 0


def test_a_step_is_timed_with_its_pass_over_mismatched_answers(kto, monkeypatch):
    from groundup.stages import preference

    stage, model, _, _, material = kto
    asked = []
    monkeypatch.setattr(preference, "logps_by_record", lambda model, rows, device: asked.extend(rows) or {})
    timed_as_trained(stage.settings, model, material).records([0, 1, 2])
    assert sum(len(row.reads_Q) for row in asked) == 3
    plain = stage.settings.model_copy(update={"loss": "sigmoid"})
    assert timed_as_trained(plain, model, material) is material


# Rows with labels and margins.


def labelled(number, label):
    return {"prompt": f"question {number}", "completion": "answer" if label else "la", "label": label}


@pytest.fixture
def rows_of(context, tokenizer):
    def read(data, kind="dpo", settings=(), **stage):
        made = context({kind: {"from": "m", "data": data, "holdout": 0.3, **stage}}, kind, settings)
        return read_rows(made, tokenizer), made.stage

    return read


def test_labelled_rows(write, rows_of, tokenizer):
    data = write("rows.jsonl", [labelled(i, i % 3 == 0) for i in range(12)])
    rows, stage = rows_of(data, loss="kto")
    assert {one.group["label"] for one in rows.train} == {0.0, 1.0}
    for one in rows.train:
        (chain,) = one.chains
        said = tokenizer.decode(chain.token[chain.scored])
        assert said == ("answer<|im_end|>" if one.group["label"] else "la<|im_end|>")
    assert all(prompt.reference == "answer" for prompt in rows.prompts), "nobody should answer like a bad one"
    written = read_jsonl(stage.data / "heldout.jsonl")
    assert [row["label"] for row in written] == [bool(one.group["label"]) for one in rows.heldout]


def test_pairs_are_taken_apart_for_kto(write, rows_of):
    data = write(
        "rows.jsonl", [{"prompt": f"question {i}", "chosen": "answer", "rejected": "la"} for i in range(8)]
    )
    rows, _ = rows_of(data, loss="kto")
    assert len(rows.train) + len(rows.heldout) == 16
    assert sum(one.group["label"] for one in rows.train) == len(rows.train) / 2
    ledger = rows.ledger
    assert ledger["in"] == ledger["kept"] == 16 and ledger["notes"]


@pytest.mark.parametrize("label", [True, False])
def test_labels_of_one_kind_teach_nothing(write, rows_of, label):
    data = write("rows.jsonl", [labelled(i, label) for i in range(8)])
    with pytest.raises(UserError, match=f"has the label {str(label).lower()}") as caught:
        rows_of(data, loss="kto")
    assert caught.value.where == data


def test_labels_that_are_words_are_counted(write, rows_of):
    made = [labelled(i, i % 2 == 0) for i in range(30)]
    made[7]["label"] = "good"
    del made[9]["label"]
    data = write("rows.jsonl", made)
    rows, _ = rows_of(data, loss="kto", settings=("data.max_bad_rows=0.2",))
    quarantined = rows.ledger["quarantined"]
    assert quarantined == {"'label' is neither true nor false": 1, "no label: neither true nor false": 1}


def test_a_row_with_a_label_reads_back(write):
    for made in (
        labelled(1, False),
        {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "label": True,
        },
    ):
        (first,) = read_labelled(DataSettings(path=[write("one.jsonl", [made])]), Ledger())
        (again,) = read_labelled(DataSettings(path=[write("two.jsonl", [as_row(first)])]), Ledger())
        assert isinstance(first, Conversation) and replace(again, origin=first.origin) == first


@pytest.mark.parametrize("margin", ["much", True, [1], {"by": 1}])
def test_a_margin_that_is_no_number_is_counted(write, rows_of, margin):
    made = [
        {"prompt": f"question {i}", "chosen": "answer", "rejected": "la", "margin": i / 4} for i in range(20)
    ]
    made[3]["margin"] = margin
    data = write("rows.jsonl", made)
    with pytest.raises(UserError, match="1 of 20 rows"):
        rows_of(data, "reward")
    rows, _ = rows_of(data, "reward", settings=("data.max_bad_rows=0.2",))
    assert rows.ledger["quarantined"] == {"'margin' is not a number": 1}
    assert {one.group["margin"] for one in rows.train} < {i / 4 for i in range(20)}


def test_sides_that_become_the_same_tokens_are_counted(write, rows_of, tokenizer, monkeypatch):
    trimming = tokenizer.chat_template.replace("message.content", "message.content | trim")
    monkeypatch.setattr(tokenizer, "chat_template", trimming)
    made = [{"prompt": f"question {i}", "chosen": "answer", "rejected": "la"} for i in range(20)]
    made[3]["rejected"] = "answer "
    rows, _ = rows_of(write("rows.jsonl", made), settings=("data.max_bad_rows=0.2",))
    assert rows.ledger["quarantined"] == {"chosen and rejected are the same tokens": 1}


def test_a_reward_model_reads_the_whole_conversation(write, rows_of, tokenizer):
    data = write(
        "rows.jsonl", [{"prompt": f"question {i}", "chosen": "answer", "rejected": "la"} for i in range(8)]
    )
    rows, _ = rows_of(data, "reward")
    for one in rows.train:
        chosen, rejected = (tokenizer.decode(chain.token[:-1]) for chain in one.chains)
        assert chosen.endswith("assistant\nanswer<|im_end|>\n") and rejected.endswith("la<|im_end|>\n")
        assert all(int(chain.scored.sum()) == 1 and chain.token[-1] == -1 for chain in one.chains)
        assert "margin" not in one.group
