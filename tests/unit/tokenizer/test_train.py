"""The trained tokenizer: exact, deterministic, and a plain Hugging Face one."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from groundup.config.schema import TokenizerSettings
from groundup.errors import UserError
from groundup.tokenizer import load_tokenizer, train_bpe, train_tokenizer
from groundup.tokenizer.train import WORDS

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
@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "sentencepiece_bpe"])
def test_no_text(texts, algorithm):
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(texts, TokenizerSettings(from_="c", algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "sentencepiece_bpe"])
def test_special_tokens_and_template(algorithm, tmp_path):
    asked = TokenizerSettings(
        from_="c", algorithm=algorithm, vocab_size=400, chat_template="chatml", special_tokens=["<tool>"]
    )
    made = train_tokenizer(TEXTS, asked)
    made.save(tmp_path)
    assert (tmp_path / "tokenizer.model").exists() == (algorithm != "bpe")
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        for token in ("<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<tool>"):
            assert loaded.tokenize(f"a{token}b")[1] == token
            assert loaded.convert_tokens_to_ids(token) in loaded.all_special_ids
        assert len(loaded) == len(loaded.get_vocab()) == max(loaded.get_vocab().values()) + 1 <= 400
        said = loaded.apply_chat_template(
            [{"role": "user", "content": "The fox"}], tokenize=False, add_generation_prompt=True
        )
        assert said == "<|im_start|>user\nThe fox<|im_end|>\n<|im_start|>assistant\n"
        assert loaded.init_kwargs["gguf"]["model"] == {"bpe": "gpt2", "unigram": "t5"}.get(algorithm, "llama")


def test_a_template_that_cannot_be_used(tmp_path):
    path = tmp_path / "never_ends.jinja"
    path.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}")
    with pytest.raises(UserError, match="end-of-turn"):
        train_tokenizer(TEXTS, TokenizerSettings(from_="c", vocab_size=350, chat_template=str(path)))
    with pytest.raises(UserError, match="cannot be read"):
        train_tokenizer(TEXTS, TokenizerSettings(from_="c", chat_template=str(tmp_path / "missing.jinja")))


def test_words_are_those_that_llama_cpp_calls_qwen2(groundup_data):
    named = json.loads((groundup_data / "tokenizer/qwen3/tokenizer.json").read_text(encoding="utf-8"))
    assert named["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == WORDS
