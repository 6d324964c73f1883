"""SFT and DPO against TRL's trainers in float32: the same rows give the same tokens, losses, gradients and steps."""

import json

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import ChatSettings, DataSettings, TrainSettings
from groundup.data import Ledger, read_conversations, read_pairs
from groundup.engine import train
from groundup.eval import packed_rows, record_logps
from groundup.model import load_adapter, load_model
from groundup.objective import Dpo, LanguageModeling, means
from groundup.store import Run
from groundup.store.files import read_jsonl
from groundup.tokenizer import load_tokenizer
from groundup.tokenizer.chat import render, render_pair

CLOSE = {"rel": 0, "abs": 1e-4}
CHAT = ChatSettings()
STEPS = 8
BATCH = 4
BETA = 0.1


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


def config(kind, folder, **options):
    common = {
        **{"output_dir": str(folder), "use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": [], "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True},
        **{"train_sampling_strategy": "sequential", "max_length": None, "max_steps": STEPS},
        "per_device_train_batch_size": BATCH,
    }
    return kind(**common | options)


def sft_trainer(model, tokenizer, rows, folder, **options):
    arguments = config(SFTConfig, folder, **options)
    return SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def dpo_trainer(model, reference, tokenizer, rows, folder, **options):
    arguments = config(DPOConfig, folder, beta=BETA, **options)
    rows = Dataset.from_list(rows)
    return DPOTrainer(model, reference, arguments, train_dataset=rows, processing_class=tokenizer)


def plain(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def tokenizer(chat_folder):
    return load_tokenizer(chat_folder)


@pytest.fixture(scope="module")
def adapter(chat_folder, tmp_path_factory):
    """An adapter that already says something: both factors random."""
    torch.manual_seed(1)
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", init_lora_weights=False
    )
    folder = tmp_path_factory.mktemp("adapter")
    peft.get_peft_model(plain(chat_folder), settings).save_pretrained(folder)
    return folder


@pytest.fixture(params=["full", "lora"])
def models(request, chat_folder, adapter):
    """Theirs and ours with the same weights, to train whole or by an adapter."""
    theirs = plain(chat_folder)
    if request.param == "full":
        return theirs, load_model(chat_folder, trainable=True)
    ours = load_model(chat_folder)
    load_adapter(ours, adapter, trainable=True)
    return peft.PeftModel.from_pretrained(theirs, adapter, is_trainable=True), ours


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


def record_of(index, *sequences):
    """A record of (token ids, which are scored) chains."""
    chains = []
    for token, scored in sequences:
        scored = np.array(scored, dtype=bool)
        scored[0] = False  # nothing stands before the first token
        chains.append(Chain(np.array(token, dtype=np.int32), scored))
    return Record(index, tuple(chains))


def sft_records(trainer):
    """TRL's own rows as ours."""
    return [
        record_of(index, (row["input_ids"], np.array(row["labels"]) != -100))
        for index, row in enumerate(trainer.train_dataset)
    ]


def dpo_records(trainer):
    return [
        record_of(
            index,
            *(
                (row["prompt_ids"] + row[side], [False] * len(row["prompt_ids"]) + [True] * len(row[side]))
                for side in ("chosen_ids", "rejected_ids")
            ),
        )
        for index, row in enumerate(trainer.train_dataset)
    ]


def logps(model, records):
    """By record; several rows of several records each, pairs sharing their prompt."""
    rows = list(packed_rows(records, max(150, len(records)), "shared"))
    assert 1 < len(rows) < len(records)
    return record_logps(model, rows, device="cpu", total=len(records), title="")


def with_reference(records, model):
    found = logps(model, records)
    return [Record(one.index, one.chains, {"ref_logp": found[one.index]}) for one in records]


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


def our_steps(model, objective, records, row_tokens, settings, folder):
    """Our loop over TRL's order of rows."""
    stage = Run.open(folder / "ours").stage("train")

    def rows_of(step):
        order = [(step * BATCH + i) % len(records) for i in range(BATCH)]
        return pack_step([records[i] for i in order], row_tokens)

    train(
        model,
        objective,
        rows_of,
        total_steps=STEPS,
        epoch_at=lambda step: step * BATCH / len(records),
        settings=settings,
        stage=stage,
        device="cpu",
        evaluate=dict,
        title="",
    )
    return [line for line in read_jsonl(stage.metrics) if "loss" in line]


def settings_and_options(scheduler):
    """The same hyperparameters in both words. Weight decay shows the groups, the low norm shows the clipping."""
    common = {
        "learning_rate": 1e-3,
        "lr_scheduler_type": scheduler,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
    }
    return TrainSettings(**common, warmup_ratio=0.0, logging_steps=1), common


def assert_same_history(ours, trainer, names):
    theirs = [line for line in trainer.state.log_history if "loss" in line]
    assert len(ours) == len(theirs) == STEPS
    for mine, other in zip(ours, theirs):
        assert {name: mine[name] for name in names} == pytest.approx(
            {name: other[name] for name in names}, **CLOSE
        )
        assert mine["learning_rate"] == pytest.approx(other["learning_rate"], rel=1e-9)
    assert ours[0]["grad_norm"] > 0.5 and abs(ours[-1]["loss"] - ours[0]["loss"]) > 0.05


def assert_same_weights(ours, theirs):
    other = {
        name.removeprefix("base_model.model.").replace(".default", "").replace(".base_layer", ""): parameter
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    trained = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert trained.keys() == other.keys()
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter, other[name], rtol=0, atol=1e-4)


# Twelve rows and four a step make whole epochs; TRL's last batch of an epoch would be smaller.
SFT_ROWS = (MESSAGES * 2)[:12]
DPO_ROWS = (PAIRS * 2)[:12]


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_sft_steps(models, tokenizer, tmp_path, scheduler):
    """TRL accumulates two micro-batches a step, we pack several rows: the loss is the mean over the step's tokens."""
    theirs, ours = models
    settings, options = settings_and_options(scheduler)
    trainer = sft_trainer(
        theirs,
        tokenizer,
        SFT_ROWS,
        tmp_path,
        assistant_only_loss=True,
        **options | {"per_device_train_batch_size": BATCH // 2, "gradient_accumulation_steps": 2},
    )
    history = our_steps(ours, LanguageModeling(), sft_records(trainer), 110, settings, tmp_path)
    trainer.train()
    assert_same_history(history, trainer, ["loss", "grad_norm"])
    assert_same_weights(ours, trainer.model)


def test_dpo_steps(models, chat_folder, tokenizer, tmp_path):
    """The reference is the model as training begins, adapter included."""
    theirs, ours = models
    settings, options = settings_and_options("constant")
    is_adapter = isinstance(theirs, peft.PeftModel)
    trainer = dpo_trainer(
        theirs, None if is_adapter else plain(chat_folder), tokenizer, DPO_ROWS, tmp_path, **options
    )
    records = with_reference(dpo_records(trainer), ours)
    history = our_steps(ours, Dpo(BETA), records, 100, settings, tmp_path)
    trainer.train()
    rewards = [f"rewards/{name}" for name in ("chosen", "rejected", "margins")]
    assert_same_history(history, trainer, ["loss", "grad_norm", "logps/chosen", "logps/rejected", *rewards])
    assert_same_weights(ours, trainer.model)
