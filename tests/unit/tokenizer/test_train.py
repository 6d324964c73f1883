"""The trained tokenizer: exact, deterministic, and a plain Hugging Face one."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from groundup.errors import UserError
from groundup.tokenizer import load_tokenizer, train_bpe

TEXTS = ["The quick brown fox, 1234 times.\n", "def f(x):\n\treturn x + 1\n", "你好，世界。"] * 20


@pytest.fixture(scope="module")
def trained():
    return train_bpe(TEXTS, 350)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(trained, text):
    ids = trained.encode(text, add_special_tokens=False)
    assert trained.decode(ids) == text


def test_bos_is_added_and_eos_is_not(trained):
    ids = trained.encode("The fox")
    assert ids[0] == trained.bos_token_id == 0
    assert trained.eos_token_id not in ids
    assert (trained.bos_token, trained.eos_token, trained.pad_token) == ("<|bos|>", "<|eos|>", "<|pad|>")
    assert trained.chat_template is None


def test_digits_stay_single(trained):
    assert trained.tokenize("1234") == ["1", "2", "3", "4"]


def test_size_is_kept_and_frequent_words_are_tokens(trained):
    assert len(trained) < 350, "there is nothing more to learn from so little text"
    assert len(train_bpe(TEXTS, 300)) == 300 == max(train_bpe(TEXTS, 300).get_vocab().values()) + 1
    assert len(trained.tokenize("The quick brown fox")) < 8


def test_the_order_of_the_texts_does_not_matter(trained):
    assert train_bpe(reversed(TEXTS), 350).get_vocab() == trained.get_vocab()


@pytest.mark.parametrize("model_type", [None, "llama", "mistral", "qwen3", "qwen2"])
def test_saved_and_loaded_it_is_the_same(trained, tmp_path, model_type):
    trained.save_pretrained(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    text = "The fox 12 <|eos|> cafe\u0301 世界\r\n"
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(text) == trained.encode(text)
    assert len(loaded) == len(trained)
    if model_type != "qwen2":  # there AutoTokenizer adds a normalizer and a token of Qwen2's own
        assert AutoTokenizer.from_pretrained(tmp_path).encode(text) == trained.encode(text)


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text(texts):
    with pytest.raises(UserError, match="no text"):
        train_bpe(texts, 350)
