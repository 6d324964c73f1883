"""SFT and DPO against TRL's trainers in float32: the same rows give the same tokens, losses, gradients and steps."""

import json

import numpy as np
import peft
import pytest
import torch
from trl_steps import (
    BATCH,
    BETA,
    CLOSE,
    DPO_NAMES,
    assert_same_history,
    assert_same_weights,
    dpo_records,
    dpo_trainer,
    logps,
    our_steps,
    plain,
    record_of,
    settings_and_options,
    sft_records,
    sft_trainer,
    two_models,
    with_reference,
    write_adapter,
)

from groundup.batch import pack_step
from groundup.config.schema import ChatSettings, DataSettings
from groundup.data import Ledger, read_conversations, read_pairs
from groundup.model import load_adapter, load_model
from groundup.objective import Dpo, LanguageModeling, means
from groundup.tokenizer import load_tokenizer
from groundup.tokenizer.chat import render, render_pair

CHAT = ChatSettings()
STEPS = 8


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Answer in one word."}
MESSAGES = [
    {"messages": messages}
    for messages in (
        [user("Hello there"), assistant("Hello")],
        [SYSTEM, user("What is two and two?"), assistant("Four, of course")],
        [user("Hi"), assistant("How are you?"), user("Fine, and you? 你好"), assistant("Fine 🙂")],
        [user("Capital of France?"), assistant("Paris; naïve people say Paris.\n\nNot I.")],
        [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f " * 12 + "end")],
        [user("  spaces  "), assistant("  spaces  ")],
        [SYSTEM, user("Two\nlines"), assistant("Two\nlines\n")],
    )
]
COMPLETIONS = [
    {"prompt": [user("Hello there")], "completion": [assistant("Hello")]},
    {
        "prompt": [SYSTEM, user("Hi"), assistant("never learned"), user("And now?")],
        "completion": [assistant("This is learned")],
    },
    {"prompt": [user("Say a, then b")], "completion": [assistant("a"), user("then?"), assistant("b")]},
]
PAIRS = [
    {"prompt": prompt, "chosen": [assistant(chosen)], "rejected": [assistant(rejected)]}
    for prompt, chosen, rejected in (
        ([user("Hello there")], "Hello", "Of course, of course, hello, how are you?"),
        ([SYSTEM, user("Two and two?")], "Four", "Five"),
        ([user("Hi"), assistant("Hello"), user("Who are you?")], "Nobody at all", "Nobody, of course"),
        ([user("Capital of France?")], "It is Paris.", "It is"),
        ([user("你好")], "你好 🙂", "naïve"),
        ([user("One word")], "Word", "Word " * 9),
        ([SYSTEM, user("Count")], "one two three", "one two four"),
    )
]


@pytest.fixture(scope="module")
def tokenizer(chat_folder):
    return load_tokenizer(chat_folder)


@pytest.fixture(scope="module")
def adapter(chat_folder, tmp_path_factory):
    return write_adapter(chat_folder, tmp_path_factory.mktemp("adapter"))


@pytest.fixture(params=["full", "lora"])
def models(request, chat_folder, adapter):
    return two_models(request.param, chat_folder, adapter)


def written(rows, folder):
    """The raw rows as a file, for our own readers."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSettings(path=[str(path)])


def rendered_conversations(tokenizer, rows, folder):
    items = read_conversations(written(rows, folder), Ledger())
    return [render(tokenizer, item.messages, CHAT, scored_from=item.scored_from) for item in items]


def rendered_pairs(tokenizer, rows, folder):
    return [render_pair(tokenizer, item, CHAT) for item in read_pairs(written(rows, folder), Ledger())]


# The same rows, rendered by both.


def test_messages_are_trls_but_for_the_line_end_behind_the_last_turn(chat_folder, tokenizer, tmp_path):
    """TRL's row ends in the template's newline, which it does not score either. Nothing else differs."""
    trainer = sft_trainer(plain(chat_folder), tokenizer, MESSAGES, tmp_path, assistant_only_loss=True)
    for theirs, ours in zip(
        trainer.train_dataset, rendered_conversations(tokenizer, MESSAGES, tmp_path), strict=True
    ):
        kept = len(ours.token)
        assert theirs["input_ids"][:kept] == ours.token.tolist()
        assert [label != -100 for label in theirs["labels"][:kept]] == ours.scored.tolist()
        assert tokenizer.decode(theirs["input_ids"][kept:]) == "\n"
        assert theirs["labels"][kept:] == [-100]


def test_completions_are_trls_but_for_what_follows_an_end_of_turn(chat_folder, tokenizer, tmp_path):
    """TRL learns all that follows the prompt: line ends, and a user's turn inside it; Groundup learns answers."""
    trainer = sft_trainer(plain(chat_folder), tokenizer, COMPLETIONS, tmp_path)
    rendered = rendered_conversations(tokenizer, COMPLETIONS, tmp_path)
    only_theirs = []
    for theirs, ours in zip(trainer.train_dataset, rendered, strict=True):
        kept = len(ours.token)
        assert theirs["input_ids"][:kept] == ours.token.tolist()
        assert tokenizer.decode(theirs["input_ids"][kept:]) == "\n"
        scored = np.array(theirs["labels"]) != -100
        assert not (ours.scored & ~scored[:kept]).any()
        padded = np.append(ours.scored, False)
        only_theirs.append(tokenizer.decode(np.array(theirs["input_ids"])[scored & ~padded]))
    assert only_theirs == [
        "\n",
        "\n",
        "\n<|im_start|>user\nthen?<|im_end|>\n<|im_start|>assistant\n\n",
    ]


def test_pairs_are_trls_but_for_the_line_end_behind_each_answer(chat_folder, tokenizer, tmp_path):
    trainer = dpo_trainer(plain(chat_folder), plain(chat_folder), tokenizer, PAIRS, tmp_path)
    for theirs, ours in zip(trainer.train_dataset, rendered_pairs(tokenizer, PAIRS, tmp_path), strict=True):
        for side, one in zip(("chosen_ids", "rejected_ids"), ours):
            whole = theirs["prompt_ids"] + theirs[side]
            assert whole[:-1] == one.token.tolist() and tokenizer.decode(whole[-1:]) == "\n"
            assert int(np.argmax(one.scored)) == len(theirs["prompt_ids"])
            assert one.scored[len(theirs["prompt_ids"]) :].all()


def test_a_token_across_the_prompts_end_is_context_here_and_learned_in_trl(chat_folder, tokenizer, tmp_path):
    """An answer that begins with line ends: they are one token with the header's. It says more than the answer."""
    rows = [{"prompt": [user("Hi")], "completion": [assistant("\nLate")]}]
    trainer = sft_trainer(plain(chat_folder), tokenizer, rows, tmp_path)
    (theirs,), (ours,) = trainer.train_dataset, rendered_conversations(tokenizer, rows, tmp_path)
    kept = len(ours.token)
    assert theirs["input_ids"][:kept] == ours.token.tolist()
    scored = np.array(theirs["labels"]) != -100
    first, behind = np.flatnonzero(scored & ~np.append(ours.scored, False))
    assert (
        tokenizer.decode(theirs["input_ids"][first]) == "\n\n" and ours.scored[first + 1] and behind == kept
    )


@pytest.mark.parametrize(
    ("rows", "options"), [(MESSAGES, {"assistant_only_loss": True}), (COMPLETIONS * 2, {})]
)
def test_the_loss_of_each_row(chat_folder, tokenizer, tmp_path, rows, options):
    trainer = sft_trainer(plain(chat_folder), tokenizer, rows, tmp_path, **options)
    records = sft_records(trainer)
    found = logps(load_model(chat_folder), records)
    trainer.model.eval()
    with torch.no_grad():
        for row, record in zip(trainer.train_dataset, records, strict=True):
            theirs = trainer.compute_loss(trainer.model, trainer.data_collator([row])).item()
            ours = -found[record.index][0] / record.chains[0].scored.sum()
            assert ours == pytest.approx(theirs, **CLOSE)
            assert theirs > 0.5


def test_rendered_messages_have_trls_loss(chat_folder, tokenizer, tmp_path):
    """From the raw rows to the loss by each one's own way."""
    trainer = sft_trainer(plain(chat_folder), tokenizer, MESSAGES, tmp_path, assistant_only_loss=True)
    with torch.no_grad():
        theirs = trainer.compute_loss(
            trainer.model, trainer.data_collator(list(trainer.train_dataset))
        ).item()
    rendered = rendered_conversations(tokenizer, MESSAGES, tmp_path)
    rows = pack_step([record_of(i, (one.token, one.scored)) for i, one in enumerate(rendered)], 130)
    model = load_model(chat_folder)
    with torch.no_grad():
        ours = sum(LanguageModeling().loss(model(row), row)[0].item() for row in rows)
    assert len(rows) > 1 and ours == pytest.approx(theirs, **CLOSE)


def test_the_numbers_of_each_pair(chat_folder, tokenizer, adapter, tmp_path):
    """The reference is another model, so that rewards are not zero."""
    theirs = peft.PeftModel.from_pretrained(plain(chat_folder), adapter).merge_and_unload()
    ours = load_model(chat_folder)
    load_adapter(ours, adapter)
    trainer = dpo_trainer(theirs, plain(chat_folder), tokenizer, PAIRS, tmp_path)
    trainer.model.eval()
    margins = []
    for row, record in zip(
        trainer.train_dataset, with_reference(dpo_records(trainer), load_model(chat_folder)), strict=True
    ):
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, trainer.data_collator([row])).item()
            (batch,) = pack_step([record], 300)
            _, metrics = Dpo(BETA).loss(ours(batch), batch)
        expected = {"loss": loss} | {name: values[-1] for name, values in trainer._metrics["eval"].items()}
        found = means([metrics])
        assert found == pytest.approx({name: expected[name] for name in found}, **CLOSE)
        assert {"logps/chosen", "logps/rejected", "rewards/margins", "rewards/accuracies"} <= found.keys()
        margins.append(found["rewards/margins"])
    assert min(margins) < -0.03 and max(margins) > 0.03


# Twelve rows and four a step make whole epochs; TRL's last batch of an epoch would be smaller.
SFT_ROWS = (MESSAGES * 2)[:12]
DPO_ROWS = (PAIRS * 2)[:12]


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_sft_steps(models, tokenizer, tmp_path, scheduler):
    """TRL accumulates two micro-batches a step, we pack several rows: the loss is the mean over the step's tokens."""
    theirs, ours = models
    settings, options = settings_and_options(scheduler, STEPS)
    trainer = sft_trainer(
        theirs,
        tokenizer,
        SFT_ROWS,
        tmp_path,
        assistant_only_loss=True,
        **options | {"per_device_train_batch_size": BATCH // 2, "gradient_accumulation_steps": 2},
    )
    history = our_steps(ours, LanguageModeling(), sft_records(trainer), 110, settings, tmp_path, STEPS)
    trainer.train()
    assert_same_history(history, trainer, ["loss", "grad_norm"], STEPS)
    assert_same_weights(ours, trainer.model)


def test_dpo_steps(models, chat_folder, tokenizer, tmp_path):
    """The reference is the model as training begins, adapter included."""
    theirs, ours = models
    settings, options = settings_and_options("constant", STEPS)
    is_adapter = isinstance(theirs, peft.PeftModel)
    trainer = dpo_trainer(
        theirs, None if is_adapter else plain(chat_folder), tokenizer, DPO_ROWS, tmp_path, **options
    )
    records = with_reference(dpo_records(trainer), ours)
    history = our_steps(ours, Dpo(BETA), records, 100, settings, tmp_path, STEPS)
    trainer.train()
    assert_same_history(history, trainer, DPO_NAMES, STEPS)
    assert_same_weights(ours, trainer.model)
