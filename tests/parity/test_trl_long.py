"""Fifty steps of SFT and DPO on real rows, step by step with TRL in float32: rounding grows, and stays small.

Rows and models that are there everywhere: the rows that ship with the recipes, on a tiny random model. With
GROUNDUP_DATA: Alpaca and preference rows on a real pretrained model of 260 thousand weights.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from trl_steps import (
    BATCH,
    BETA,
    DPO_NAMES,
    assert_same_history,
    assert_same_weights,
    dpo_records,
    dpo_trainer,
    logps,
    our_steps,
    plain,
    settings_and_options,
    sft_records,
    sft_trainer,
    two_models,
    with_reference,
    write_adapter,
)

import groundup
from groundup.objective import Dpo, LanguageModeling
from groundup.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow
STEPS = 50
MOST_TOKENS = 250
ROW_TOKENS = 500
CLOSE = {"rel": 1e-4, "abs": 1e-4}
"""Each number of each step is within 1e-4, or a ten-thousandth of itself: summed log-probabilities are hundreds."""
SHIPPED = Path(groundup.__file__).parent / "recipes" / "data"
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}{% else %}"
    "{{ message.content + '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


@dataclass(frozen=True)
class Case:
    """A base model, and rows for it."""

    folder: Path
    conversations: list[dict]
    pairs: list[dict]
    fresh_adapter: bool
    """A random one would ruin a pretrained model, and then rounding grows by chaos alone."""

    @property
    def tokenizer(self):
        return load_tokenizer(self.folder)

    def first(self, rows):
        """As many as fifty steps take, none of them long."""
        tokenizer = self.tokenizer

        def tokens(row):
            if "messages" in row:
                return len(tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"])
            sides = (row["prompt"] + row[side] for side in ("chosen", "rejected"))
            return max(len(tokenizer.apply_chat_template(side, tokenize=True)["input_ids"]) for side in sides)

        short = (row for row in rows if tokens(row) <= MOST_TOKENS)
        found = [row for row, _ in zip(short, range(STEPS * BATCH))]
        return found[: len(found) // BATCH * BATCH]  # TRL's last batch of an epoch would be smaller


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shipped(chat_folder):
    return Case(
        chat_folder,
        lines(SHIPPED / "groundup-chat.jsonl"),
        lines(SHIPPED / "groundup-pairs.jsonl"),
        fresh_adapter=False,
    )


def real(data, folder):
    """The pretrained model with a chat template that needs no token of its own."""
    base = folder / "stories"
    shutil.copytree(data / "model/stories260K/hf", base)
    base.chmod(0o755)
    for path in base.iterdir():
        path.chmod(0o644)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.save_pretrained(base)
    alpaca = json.loads((data / "sft/alpaca_en_sample/alpaca_data.json").read_text(encoding="utf-8"))
    demo = json.loads((data / "preference/llamafactory_demo/dpo_en_demo.json").read_text(encoding="utf-8"))
    conversations = [
        {
            "messages": user(" ".join(filter(None, (row["instruction"], row["input"]))))
            + assistant(row["output"][:100])
        }
        for row in alpaca
    ]
    pairs = [
        {
            "prompt": user(row["conversations"][-1]["value"][:100]),
            "chosen": assistant(row["chosen"]["value"][:100]),
            "rejected": assistant(row["rejected"]["value"][:100]),
        }
        for row in demo
    ]
    return Case(base, conversations, pairs, fresh_adapter=True)


@pytest.fixture(params=["shipped", "real"])
def case(request, chat_folder, tmp_path):
    if request.param == "shipped":
        return shipped(chat_folder)
    return real(request.getfixturevalue("groundup_data"), tmp_path)


@pytest.fixture(params=["full", "lora"])
def models(request, case, tmp_path):
    if request.param == "full":
        return two_models("full", case.folder, None)
    adapter = write_adapter(case.folder, tmp_path / "adapter", fresh=case.fresh_adapter)
    return two_models("lora", case.folder, adapter)


def assert_same_logps(ours, theirs, records):
    """What both trained models say about each row: packed by ours, one whole chain a forward by theirs."""
    found = logps(ours, records, ROW_TOKENS)
    theirs.eval()
    for record in records:
        for chain, logp in zip(record.chains, found[record.index], strict=True):
            token = torch.from_numpy(chain.token).long()
            with torch.no_grad():
                each = theirs(token[None]).logits[0, :-1].log_softmax(-1).gather(1, token[1:, None])[:, 0]
            assert logp == pytest.approx(float(each[torch.from_numpy(chain.scored[1:])].sum()), **CLOSE)


def test_sft(case, models, tmp_path):
    theirs, ours = models
    settings, options = settings_and_options("cosine", STEPS)
    rows = case.first(case.conversations)
    trainer = sft_trainer(theirs, case.tokenizer, rows, tmp_path, assistant_only_loss=True, **options)
    history = our_steps(ours, LanguageModeling(), sft_records(trainer), ROW_TOKENS, settings, tmp_path, STEPS)
    trainer.train()
    assert_same_history(history, trainer, ["loss", "grad_norm"], STEPS, CLOSE)
    assert_same_weights(ours, trainer.model)
    assert_same_logps(ours, trainer.model, sft_records(trainer)[:20])


def test_dpo(case, models, tmp_path):
    theirs, ours = models
    settings, options = settings_and_options("constant", STEPS, learning_rate=2.5e-4)
    reference = None if hasattr(theirs, "peft_config") else plain(case.folder)
    trainer = dpo_trainer(theirs, reference, case.tokenizer, case.first(case.pairs), tmp_path, **options)
    records = with_reference(dpo_records(trainer), ours, ROW_TOKENS)
    history = our_steps(ours, Dpo(BETA), records, ROW_TOKENS, settings, tmp_path, STEPS)
    trainer.train()
    assert_same_history(history, trainer, DPO_NAMES, STEPS, CLOSE)
    assert_same_weights(ours, trainer.model)
    assert_same_logps(ours, trainer.model, records[:20])
