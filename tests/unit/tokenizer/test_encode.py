"""Documents to ids: as the tokenizer itself, whatever the batches; special tokens in a text are text."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from groundup.tokenizer import encode
from groundup.tokenizer.encode import Encoder, batches_of
from groundup.tokenizer.fertility import fertility, script_of


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_ids_do_not_depend_on_batches(tokenizer, monkeypatch, size):
    texts = [f"Hello {i}. " * (i % 7) for i in range(40)]
    monkeypatch.setattr(encode, "BATCH_DOCUMENTS", size)
    found = [ids.tolist() for _, batch in Encoder(tokenizer).batches(iter(texts)) for ids in batch]
    assert found == [[*tokenizer.encode(text), tokenizer.eos_token_id] for text in texts]


def test_few_documents_are_read_ahead(tokenizer, monkeypatch):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
    read = []

    def texts():
        for number in range(100):
            read.append(number)
            yield "x" * 60

    next(iter(Encoder(tokenizer).batches(texts())))
    assert len(read) <= 2 * (encode.ENCODERS + 1)
    assert [len(batch) for batch in batches_of(["x" * 60] * 5)] == [2, 2, 1]


def special_among_pieces(kind):
    """As tokenizers are that come from SentencePiece: `<s>` is a piece that letters would add up to."""
    letters = ["<unk>", "<s>", "</s>", "<", "s", ">", "/", "a", "<s"]
    if kind == "unigram":
        core = Tokenizer(
            models.Unigram([(piece, 0.0 if i < 3 else -2.0) for i, piece in enumerate(letters)], unk_id=0)
        )
    else:
        vocab = {piece: number for number, piece in enumerate(letters)}
        core = Tokenizer(models.BPE(vocab, [("<", "s"), ("<s", ">")], unk_token="<unk>"))
    core.normalizer, core.decoder = normalizers.Sequence([]), decoders.Fuse()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in letters[:3]])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_letters_do_not_add_up_to_a_special_token(kind):
    tokenizer = special_among_pieces(kind)
    ((_, (ids,)),) = Encoder(tokenizer).batches(["a<s>a</s>"])
    assert tokenizer.convert_ids_to_tokens(ids[-1:]) == ["</s>"]
    assert not set(ids[:-1].tolist()) & {0, 1, 2}
    assert tokenizer.decode(ids[:-1]) == "a<s>a</s>"
    assert tokenizer.encode("<s>") == [1], "the tokenizer given is as it was"


def test_fingerprint(tokenizer):
    before = Encoder(tokenizer).fingerprint
    assert Encoder(tokenizer).fingerprint == before
    tokenizer.add_tokens(["new"])
    assert Encoder(tokenizer).fingerprint != before


def test_fertility(tokenizer):
    texts = ["Hello there, how are you?"] * 3 + ["你好你好"] * 2
    found = fertility({"a": tokenizer}, texts)["a"]
    tokens = {text: len(tokenizer.encode(text, add_special_tokens=False)) for text in texts}
    hello, chinese = (tokens[text] for text in (texts[0], texts[-1]))
    assert found["bytes_per_token"] == pytest.approx((3 * 25 + 2 * 12) / (3 * hello + 2 * chinese))
    assert found["tokens_per_word"] == pytest.approx(hello / 5), "words are counted where spaces part them"
    assert list(found["by_script"]) == ["LATIN", "CJK"]
    assert found["by_script"]["CJK"] == {
        "bytes_per_token": pytest.approx(12 / chinese),
        "tokens_per_character": pytest.approx(chinese / 4),
    }


@pytest.mark.parametrize(
    ("text", "script"), [("Привет, world", "CYRILLIC"), ("世界 a", "CJK"), ("12 + 3", "OTHER"), ("", "OTHER")]
)
def test_script(text, script):
    assert script_of(text) == script
