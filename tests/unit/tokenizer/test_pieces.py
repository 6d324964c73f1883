"""SentencePiece's tokenizers: SentencePiece's own ids, every text back, and no text that becomes another piece."""

import json

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.schema import TokenizerSettings
from groundup.errors import UserError
from groundup.tokenizer import TokenShards, load_tokenizer, train_tokenizer, write_shards

TEXTS = ["The quick brown fox,  1234 times.\n\n", "def f(x):\n    return x + 1\n", "你好，世界。"] * 20
TRICKY = [
    "<unk><s></s><0x0A><0x41> <|eos|>",
    "a  b\t\tc\r\n \u00a0x",
    " lead, trail ",
    "\u3000你好\U0001f600",
    "\n\n",
]
ALGORITHMS = ["unigram", "sentencepiece_bpe"]


def trained_on(texts, algorithm, vocab_size=450):
    made = train_tokenizer(texts, TokenizerSettings(from_="c", algorithm=algorithm, vocab_size=vocab_size))
    return made, sentencepiece.SentencePieceProcessor(model_proto=made.model)


@pytest.fixture(scope="module", params=ALGORITHMS)
def both(request):
    return trained_on(TEXTS, request.param)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"))
    | st.sampled_from(TRICKY)
)
def test_any_text_comes_back_with_the_same_ids(both, text):
    made, original = both
    ids = made.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    if not any(token in text for token in made.tokenizer.all_special_tokens):
        assert ids == original.encode(text)
    assert made.tokenizer.decode(ids) == text


def test_the_one_character_that_does_not_come_back(both):
    made, _ = both
    assert made.tokenizer.decode(made.tokenizer.encode("a\u2581b", add_special_tokens=False)) == "a b"


def test_the_same_again(both):
    made, _ = both
    algorithm = "unigram" if made.tokenizer.init_kwargs["gguf"]["model"] == "t5" else "sentencepiece_bpe"
    assert trained_on(TEXTS, algorithm)[0].model == made.model


def test_special_tokens_in_documents_stay_text(both, tmp_path):
    made, _ = both
    made.save(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    write_shards(tmp_path / "shards", lambda first: TRICKY[first:], tokenizer, source="s")
    shards = TokenShards(tmp_path / "shards")
    for number, text in enumerate(TRICKY):
        ids = shards.document(number)
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert not set(ids[1:-1].tolist()) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(ids[1:-1]) == text


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_too_small(algorithm):
    with pytest.raises(UserError, match="SentencePiece") as caught:
        trained_on(TEXTS, algorithm, 300)
    assert "vocab_size" in caught.value.fix


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_real_text(groundup_data, algorithm):
    book = (groundup_data / "pretrain/gutenberg/Frankenstein_84.txt").read_text(encoding="utf-8")
    poems = (
        (groundup_data / "pretrain/chinese_poetry/poems_15000.jsonl").read_text(encoding="utf-8").splitlines()
    )
    chinese = "\n".join(json.loads(line)["text"] for line in poems[:500])
    texts = [text[i : i + 4000] for text in (book, chinese) for i in range(0, len(text), 4000)]
    made, original = trained_on(texts[::2], algorithm, 4500)
    core = made.tokenizer.backend_tokenizer
    for text in texts[1::2]:
        ids = core.encode(text, add_special_tokens=False).ids
        assert ids == original.encode(text)
        assert made.tokenizer.decode(ids) == text
