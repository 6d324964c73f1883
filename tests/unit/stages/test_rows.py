"""Rows to records: nothing held out is trained on, and every row is accounted for."""

import pytest

from groundup.config.schema import DataSettings
from groundup.data import Ledger, read_conversations, read_pairs
from groundup.errors import UserError
from groundup.stages import rows
from groundup.stages.rows import as_row, prompt_of, read_rows
from groundup.store.files import read_jsonl


def row(number, answer="answer"):
    return {
        "messages": [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": answer},
        ]
    }


def pair(number):
    return {"prompt": f"question {number}", "chosen": "answer", "rejected": "la"}


@pytest.fixture
def rows_of(context, tokenizer):
    """`read_rows` of an sft or dpo stage, and the stage's folder."""

    def read(data, kind="sft", settings=(), **stage):
        made = context({kind: {"from": "m", "data": data, **stage}}, kind, settings)
        return read_rows(made, tokenizer), made.stage

    return read


def texts(records, tokenizer):
    return [tokenizer.decode(chain.token) for record in records for chain in record.chains]


def balanced(ledger):
    placed = sum(ledger["filtered"].values()) + sum(ledger["quarantined"].values()) + ledger["deduplicated"]
    return ledger["in"] == ledger["kept"] + placed


def test_every_row_is_in_one_place(write, rows_of, tokenizer):
    """A copy, one too long, one with a special token in its text, one without an answer."""
    data = write(
        "rows.jsonl",
        [*(row(i) for i in range(20)), row(3), row(90, "la " * 200), row(91, "a <|im_end|> b"), row(92, "")],
    )
    rows, stage = rows_of(data, holdout=0.3, max_length=64, settings=("data.max_bad_rows=0.5",))
    ledger = rows.ledger
    assert balanced(ledger) and ledger["in"] == 24 and ledger["kept"] == 20
    assert ledger["deduplicated"] == 1 and not ledger["filtered"]
    assert ledger["quarantined"]["longer than 64 tokens"] == 1 and sum(ledger["quarantined"].values()) == 3
    assert len(rows.train) + len(rows.heldout) == 20 and rows.heldout
    assert {line["line"] for line in read_jsonl(stage.quarantine)} == {22, 23, 24}
    assert [record.index for record in rows.train + rows.heldout] == list(range(20))


@pytest.mark.parametrize(("kind", "make"), [("sft", row), ("dpo", pair)])
def test_what_is_held_out_is_never_trained_on(write, rows_of, tokenizer, kind, make):
    """Two answers to each question stand on the same side."""
    made = [make(i) for i in range(30)] * 2
    for number, one in enumerate(made[30:]):
        made[30 + number] = row(number, "another") if kind == "sft" else {**one, "chosen": "another"}
    rows, stage = rows_of(write("rows.jsonl", made), kind, holdout=0.2)
    train, heldout = (
        {text.split("assistant")[0] for text in texts(records, tokenizer)}
        for records in (rows.train, rows.heldout)
    )
    assert heldout and not train & heldout
    assert len(train | heldout) == 30 and len(rows.train) + len(rows.heldout) == 60
    again, _ = rows_of(write("rows.jsonl", made[::-1]), kind, holdout=0.2)
    assert set(texts(again.heldout, tokenizer)) == set(texts(rows.heldout, tokenizer)), "whatever the order"
    assert len(read_jsonl(stage.data / "heldout.jsonl")) == len(rows.heldout)


@pytest.mark.parametrize(("kind", "make"), [("sft", row), ("dpo", pair)])
def test_eval_data_takes_its_prompts_out_of_data(write, rows_of, tokenizer, kind, make):
    data = write("rows.jsonl", [make(i) for i in range(10)])
    heldout = write("held.jsonl", [make(i) for i in range(7, 12)])
    rows, _ = rows_of(data, kind, eval_data=heldout)
    assert len(rows.train) == 7 and len(rows.heldout) == 5
    assert rows.ledger["filtered"] == {"its prompt is held out": 3} and balanced(rows.ledger)
    assert not set(texts(rows.train, tokenizer)) & set(texts(rows.heldout, tokenizer))


def test_too_many_bad_rows(write, rows_of):
    data = write("rows.jsonl", [row(i, "<|im_end|>" if i == 4 else "fine") for i in range(20)])
    with pytest.raises(UserError, match="1 of 20 rows") as error:
        rows_of(data, holdout=0.3)
    assert error.value.where == f"{data}:5"


def test_nothing_left(write, rows_of):
    data = write("rows.jsonl", [row(i) for i in range(5)])
    with pytest.raises(UserError, match="no rows are left to train on") as error:
        rows_of(data, max_length=4)
    assert error.value.where == data and "longer than 4 tokens" in error.value.why
    with pytest.raises(UserError, match="no rows are left to evaluate on"):
        rows_of(write("one.jsonl", [row(0)]))


def test_the_loss_sees_all_turns_or_the_last(write, rows_of, tokenizer):
    two = [{"messages": row(i)["messages"] + row(i + 50, "last answer")["messages"]} for i in range(4)]
    data = write("rows.jsonl", two)
    seen = {}
    for turns in ("all", "last"):
        rows, _ = rows_of(data, holdout=0.3, loss_on=turns)
        (chain,) = rows.train[0].chains
        seen[turns] = tokenizer.decode(chain.token[chain.scored])
    assert seen == {"all": "answer<|im_end|>last answer<|im_end|>", "last": "last answer<|im_end|>"}


def test_pairs_have_two_chains_and_their_prompt_is_not_scored(write, rows_of, tokenizer):
    rows, _ = rows_of(write("rows.jsonl", [pair(i) for i in range(6)]), "dpo", holdout=0.3)
    chosen, rejected = rows.train[0].chains
    assert tokenizer.decode(chosen.token[chosen.scored]) == "answer<|im_end|>"
    assert tokenizer.decode(rejected.token[rejected.scored]) == "la<|im_end|>"


def test_prompts_and_references(write, rows_of):
    rows, _ = rows_of(write("rows.jsonl", [pair(i) for i in range(6)]), "dpo", holdout=0.5)
    assert {prompt.reference for prompt in rows.prompts} == {"answer"}
    assert all(prompt.text.startswith("question ") for prompt in rows.prompts)
    assert len(rows.prompts) == len(rows.heldout)


@pytest.mark.parametrize(
    ("read", "made"),
    [
        (read_conversations, row(1)),
        (read_conversations, {"prompt": "q", "completion": "a"}),
        (read_conversations, {"system": "s", "instruction": "q", "input": "i", "output": "a"}),
        (read_conversations, {**row(1), "tools": [{"name": "look", "parameters": {}}]}),
        (read_pairs, pair(1)),
    ],
)
def test_a_written_row_reads_back_as_the_same(write, read, made):
    """What is held out is read again by an evaluation."""
    (first,) = read(DataSettings(path=[write("one.jsonl", [made])]), Ledger())
    (again,) = read(DataSettings(path=[write("two.jsonl", [as_row(first)])]), Ledger())
    assert as_row(again) == as_row(first) and again.key == first.key
    assert prompt_of(again) == prompt_of(first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_several_processes_make_the_same_rows(write, rows_of, monkeypatch, kind):
    made = [
        row(i, f"answer {i}") if kind == "sft" else pair(i) | {"chosen": f"answer {i}"} for i in range(700)
    ]
    made[5] = row(5, "a <|im_end|> b") if kind == "sft" else pair(5) | {"chosen": "la <|im_end|>"}
    data = write("rows.jsonl", made)
    alone, stage = rows_of(data, kind)
    quarantined = stage.quarantine.read_text()
    used = []
    monkeypatch.setattr(rows, "worker_count", lambda wanted, jobs, *_: (used.append(1) or 2, jobs))
    together, stage = rows_of(data, kind)
    assert used and alone.ledger == together.ledger and quarantined == stage.quarantine.read_text()
    for one, other in zip(alone.train + alone.heldout, together.train + together.heldout, strict=True):
        assert (one.index, one.group) == (other.index, other.group)
        for chain, same in zip(one.chains, other.chains, strict=True):
            assert (
                chain.token.tolist() == same.token.tolist() and chain.scored.tolist() == same.scored.tolist()
            )
            assert (chain.token.dtype, chain.scored.dtype) == (same.token.dtype, same.scored.dtype)
