"""Classifiers and reward models as rewards, beside transformers' own outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.export import merge_adapter
from groundup.model import attach_lora, attach_score, load_model, save_adapter
from groundup.model.classifier import open_classifier
from groundup.model.reward import score_tokens
from groundup.tokenizer import load_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<eos>", "good", "bad", "film", "a", "very"]
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} <eos>{% endfor %}"


def write(folder: Path, kind: str, *, template: str | None = None, **options: Any) -> Path:
    torch.manual_seed(3)
    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["<eos>", "[CLS]", "[SEP]", "[PAD]"])
    shape = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "max_position_embeddings": 24, "initializer_range": 0.5}
    model: Any
    if kind == "bert":
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        model = BertForSequenceClassification(BertConfig(**shape, pad_token_id=0, **options))
    else:
        options = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 4} | options
        model = LlamaForSequenceClassification(LlamaConfig(**shape, **options))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


NAMED = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
TEXTS = ["good film", "bad", "a very very good film <eos>", "a bad film a bad film", "good"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("bert", {}), ("llama", {"num_labels": 1}), ("llama", {"num_labels": 3, "pad_token_id": 4})],
)
def test_texts_in_batches_score_as_each_alone_in_transformers(
    tmp_path: Path, kind: str, options: dict[str, Any]
):
    """Also where a text ends with what others are padded with."""
    folder = write(tmp_path / "model", kind, **options)
    classifier = open_classifier(folder)
    texts = [classifier.tokenizer(text)["input_ids"] for text in TEXTS]
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        alone = torch.cat([theirs(input_ids=torch.tensor([text])).logits for text in texts])
    torch.testing.assert_close(classifier.logits(texts), alone, atol=1e-5, rtol=1e-5)


def test_sentiment_takes_the_class_that_is_called_positive(load, tmp_path: Path):
    folder = write(tmp_path / "model", "bert", **NAMED)
    rewards = load(
        {"function": "sentiment", "model": str(folder)},
        {"function": "sentiment", "model": str(folder), "score": "logit", "label": "NEGATIVE", "name": "bad"},
        {"function": "sentiment", "model": str(folder), "include_prompt": True, "name": "whole"},
    )
    scores = rewards.score(["a very "] * 2, ["good film", "bad film"], {})
    classifier = open_classifier(folder)
    logits_NC = classifier.logits(
        [classifier.tokenizer(text)["input_ids"] for text in ("good film", "bad film")]
    )
    assert scores.each["sentiment"] == pytest.approx(logits_NC.softmax(-1)[:, 1].tolist(), abs=1e-6)
    assert scores.each["bad"] == pytest.approx(logits_NC[:, 0].tolist(), abs=1e-5)
    whole = classifier.logits(
        [classifier.tokenizer(f"a very {text} film")["input_ids"] for text in ("good", "bad")]
    )
    assert scores.each["whole"] == pytest.approx(whole.softmax(-1)[:, 1].tolist(), abs=1e-6)


def test_a_reward_model_reads_prompt_and_answer_through_its_template(load, tmp_path: Path):
    folder = write(tmp_path / "model", "llama", num_labels=1, template=TEMPLATE)
    classifier = open_classifier(folder)
    prompt = [{"role": "user", "content": "a film"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("good", "very bad")]
    rewards = load({"function": "model", "model": str(folder)})
    scores = rewards.score([prompt] * 2, answers, {})
    texts = [f"user a film <eos>assistant {text} <eos>" for text in ("good", "very bad")]
    expected = classifier.logits([classifier.tokenizer(text)["input_ids"] for text in texts])[:, 0]
    assert scores.each["model"] == pytest.approx(expected.tolist(), abs=1e-5)
    plain = rewards.score(["a film "] * 2, ["good", "very bad"], {})
    texts = ["a film good", "a film very bad"]
    expected = classifier.logits([classifier.tokenizer(text)["input_ids"] for text in texts])[:, 0]
    assert plain.each["model"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_reward_stages_adapter_scores_as_its_merged_model(load, tmp_path: Path):
    """Nothing has to be merged before a policy is trained for it; the whole conversation is read."""
    base = load_model(write_lm(tmp_path / "base"))
    attach_lora(base, LoraSettings(r=2), seed=1)
    attach_score(base, seed=2)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    save_adapter(base, tmp_path / "adapter", str(tmp_path / "base"), reward=True)
    tokenizer = load_tokenizer(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "base", tmp_path / "merged")
    prompt = [{"role": "user", "content": "a film"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("good", "very bad")]
    found = []
    for name in ("adapter", "merged"):
        rewards = load({"function": "model", "model": str(tmp_path / name)})
        found.append(rewards.score([prompt] * 2, answers, {}).each["model"])
    assert found[0] == pytest.approx(found[1], abs=1e-5) and found[0][0] != pytest.approx(
        found[0][1], abs=1e-3
    )
    text = "user a film <eos>assistant good <eos> very"
    assert found[0][0] == pytest.approx(
        score_tokens(base, torch.tensor(tokenizer(text)["input_ids"])), abs=1e-5
    )


def write_lm(folder: Path) -> Path:
    """A language model whose template writes something behind the last turn."""
    write(folder, "llama", template=TEMPLATE + " very", pad_token_id=0)
    options = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    options |= {"intermediate_size": 32, "max_position_embeddings": 24, "initializer_range": 0.5}
    LlamaForCausalLM(
        LlamaConfig(**options, pad_token_id=0, bos_token_id=None, eos_token_id=4)
    ).save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = "[PAD]"
    tokenizer.save_pretrained(folder)
    return folder


def test_other_labels_are_listed(load, tmp_path: Path):
    stars = {"id2label": {0: "1 star", 1: "2 stars"}, "label2id": {"1 star": 0, "2 stars": 1}}
    folder = str(write(tmp_path / "stars", "bert", **stars))
    with pytest.raises(UserError, match="no class that is called positive") as raised:
        load({"function": "sentiment", "model": folder})
    assert "1 star, 2 stars" in raised.value.why
    with pytest.raises(UserError, match="no class '3 stars'"):
        load({"function": "sentiment", "model": folder, "label": "3 stars"})
    with pytest.raises(UserError, match="no reward model: it has 2 classes"):
        load({"function": "model", "model": folder})
    assert load({"function": "sentiment", "model": folder, "label": "2 stars"})


def test_a_reward_model_is_no_classifier_unless_its_number_is_named(load, tmp_path: Path):
    folder = str(write(tmp_path / "model", "llama", num_labels=1))
    with pytest.raises(UserError, match="one number, as a reward model does") as raised:
        load({"function": "sentiment", "model": folder})
    assert "function: model" in raised.value.fix and "label: LABEL_0" in raised.value.fix
    assert load({"function": "sentiment", "model": folder, "label": "LABEL_0"})


def test_classes_without_names_and_with_strange_numbers(load, tmp_path: Path):
    folder = write(tmp_path / "model", "bert")
    with pytest.raises(UserError, match="no class that is called positive") as raised:
        load({"function": "sentiment", "model": str(folder)})
    assert "LABEL_0, LABEL_1" in raised.value.why
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"1": "neg", "2": "pos"}}))
    with pytest.raises(UserError, match="classes cannot be told") as raised:
        load({"function": "sentiment", "model": str(folder)})
    assert "1, 2" in raised.value.why


def test_folders_that_are_no_classifiers(load, tmp_path: Path):
    folder = tmp_path / "causal"
    LlamaForCausalLM(
        LlamaConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(folder)
    with pytest.raises(UserError, match="holds no classifier") as raised:
        load({"function": "sentiment", "model": str(folder)})
    assert "LlamaForCausalLM" in raised.value.why
    with pytest.raises(UserError, match="There is no model"):
        load({"function": "model", "model": str(tmp_path / "absent")})


def test_a_text_that_is_too_long_is_told_with_its_row(load, tmp_path: Path):
    folder = write(tmp_path / "model", "bert", **NAMED)
    rewards = load({"function": "sentiment", "model": str(folder), "on_error": "zero"})
    scores = rewards.score(["p"] * 3, ["good", "bad " * 50, ""], {})
    assert [failure.row for failure in scores.failures] == [1]
    assert "52 tokens" in scores.failures[0].reason and "at most 24" in scores.failures[0].reason
    assert scores.each["sentiment"][1] == 0.0 and scores.each["sentiment"][0] != 0.0
