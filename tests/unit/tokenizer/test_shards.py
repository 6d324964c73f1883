"""Token shards: every document comes back, and damage is noticed."""

import json

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.tokenizer import TokenShards, encode, write_shards


def write(folder, texts, tokenizer, source="s", **options):
    return write_shards(folder, lambda first: texts[first:], tokenizer, source=source, **options)


TEXTS = [f"Hello number {i}. " + "你好 " * (i % 5) for i in range(700)] + ["looks like <|eos|> but is text"]


def test_documents_come_back_over_many_shards(tokenizer, tmp_path):
    done = []
    totals = write(tmp_path / "x", TEXTS, tokenizer, tokens_per_shard=2000, on_documents=done.append)
    shards = TokenShards(tmp_path / "x")
    assert len(list((tmp_path / "x").glob("*.bin"))) > 3
    assert len(shards) == len(TEXTS) == totals["documents"] == sum(done)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for number, text in enumerate(TEXTS):
        token = shards.document(number)
        assert (token[0], token[-1]) == (bos, eos)
        assert tokenizer.decode(token[1:-1]) == text
        assert np.count_nonzero(token == eos) == 1
        assert shards.lengths[number] == len(token)
        assert shards.size_bytes(number) == len(text.encode())
    assert shards.total_tokens == totals["tokens"] == shards.lengths.sum()
    assert totals["bytes"] == shards.total_bytes
    shards.verify()
    with pytest.raises(IndexError):
        shards.document(len(TEXTS))
    with pytest.raises(ValueError, match="read-only"):
        shards.document(0)[0] = 1


def test_the_tokenizer_is_left_as_it_was(tokenizer, tmp_path):
    before = tokenizer.encode("a<|eos|>")
    write(tmp_path / "x", TEXTS[:3], tokenizer)
    assert tokenizer.encode("a<|eos|>") == before


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_ids_are_as_narrow_as_the_vocabulary_allows(tokenizer, tmp_path, vocab_size, dtype):
    tokenizer.add_tokens([f"extra{i}" for i in range(vocab_size - len(tokenizer))])
    write(tmp_path / "x", ["a", f"extra{vocab_size - 400}"], tokenizer)
    shards = TokenShards(tmp_path / "x")
    assert shards.document(0).dtype == dtype
    assert tokenizer.decode(shards.document(1)[1:-1]) == f"extra{vocab_size - 400}"


def test_no_documents_and_no_eos(tokenizer, tmp_path):
    assert write(tmp_path / "x", [], tokenizer) == {"documents": 0, "tokens": 0, "bytes": 0}
    assert len(TokenShards(tmp_path / "x")) == 0
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end-of-text"):
        write(tmp_path / "y", ["a"], tokenizer)
    assert not (tmp_path / "y").exists()


def test_after_an_error_it_goes_on_with_the_same_bits(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "BATCH_DOCUMENTS", 16)
    asked = []

    def texts(first):
        asked.append(first)
        yield from TEXTS[first : 500 if len(asked) == 1 else None]
        if len(asked) == 1:
            raise RuntimeError("stop")

    def build(folder):
        return write_shards(tmp_path / folder, texts, tokenizer, source="s", tokens_per_shard=300)

    with pytest.raises(RuntimeError):
        build("x")
    with pytest.raises(UserError, match="damaged"):
        TokenShards(tmp_path / "x")
    totals = build("x")
    assert asked[0] == 0 and 0 < asked[1] < 500, "whole shards were not made again"
    assert build("whole") == totals
    assert contents(tmp_path / "x") == contents(tmp_path / "whole")
    assert build("x") == totals and asked == [0, asked[1], 0], "a finished one is not read again"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("change", ["source", "tokenizer", "size", "damage"])
def test_only_what_was_begun_from_the_same_goes_on(tokenizer, tmp_path, change):
    write(tmp_path / "x", TEXTS, tokenizer, source="False", tokens_per_shard=2000)
    asked = []
    if change == "tokenizer":
        tokenizer.add_tokens(["Hello"])
    if change == "damage":
        (tmp_path / "x/shard-00001.npy").write_bytes(b"")
    other = TEXTS[1:] if change == "source" else TEXTS

    def texts(first):
        asked.append(first)
        return other[first:]

    size = 1999 if change == "size" else 2000
    write_shards(tmp_path / "x", texts, tokenizer, source=str(change == "source"), tokens_per_shard=size)
    assert (asked[0] > 0) == (change == "damage")
    fresh = {"source": str(change == "source"), "tokens_per_shard": size}
    write(tmp_path / "fresh", other, tokenizer, **fresh)
    assert contents(tmp_path / "x") == contents(tmp_path / "fresh")


def test_damage_is_noticed(tokenizer, tmp_path):
    write(tmp_path / "x", TEXTS, tokenizer)
    binary, index = tmp_path / "x/shard-00000.bin", tmp_path / "x/shard-00000.npy"
    whole = binary.read_bytes()
    binary.write_bytes(whole[:-2] + b"\0\0")
    with pytest.raises(UserError, match="checksum"):
        TokenShards(tmp_path / "x").verify()
    binary.write_bytes(whole[:-2])
    with pytest.raises(UserError, match="bytes instead of"):
        TokenShards(tmp_path / "x")
    binary.write_bytes(whole)
    np.save(index, np.load(index)[:-1])
    with pytest.raises(UserError, match="shape"):
        TokenShards(tmp_path / "x")
    index.unlink()
    with pytest.raises(UserError, match="damaged"):
        TokenShards(tmp_path / "x")
    binary.unlink()
    with pytest.raises(UserError, match="damaged"):
        TokenShards(tmp_path / "x")


def test_the_description_is_plain_json(tokenizer, tmp_path):
    write(tmp_path / "x", TEXTS, tokenizer)
    described = json.loads((tmp_path / "x/shards.json").read_text())
    assert described["documents"] == len(TEXTS) and described["dtype"] == "<u2"
    assert described["eos_token_id"] == tokenizer.eos_token_id
    assert [shard["name"] for shard in described["shards"]] == ["shard-00000"]
