"""Token shards: every document comes back, and damage is noticed."""

import json

import numpy as np
import pytest

from groundup.errors import UserError
from groundup.tokenizer import TokenShards, write_shards

TEXTS = [f"Hello number {i}. " + "你好 " * (i % 5) for i in range(700)] + ["looks like <|eos|> but is text"]


def test_documents_come_back_over_many_shards(tokenizer, tmp_path):
    done = []
    totals = write_shards(
        tmp_path / "x", iter(TEXTS), tokenizer, tokens_per_shard=2000, on_documents=done.append
    )
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
        assert shards.byte_counts[number] == len(text.encode())
    assert shards.total_tokens == totals["tokens"] == shards.lengths.sum()
    assert totals["bytes"] == shards.byte_counts.sum()
    shards.verify()
    with pytest.raises(IndexError):
        shards.document(len(TEXTS))
    with pytest.raises(ValueError, match="read-only"):
        shards.document(0)[0] = 1


def test_the_tokenizer_is_left_as_it_was(tokenizer, tmp_path):
    before = tokenizer.encode("a<|eos|>")
    write_shards(tmp_path / "x", TEXTS[:3], tokenizer)
    assert tokenizer.encode("a<|eos|>") == before


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_ids_are_as_narrow_as_the_vocabulary_allows(tokenizer, tmp_path, vocab_size, dtype):
    tokenizer.add_tokens([f"extra{i}" for i in range(vocab_size - len(tokenizer))])
    write_shards(tmp_path / "x", ["a", f"extra{vocab_size - 400}"], tokenizer)
    shards = TokenShards(tmp_path / "x")
    assert shards.document(0).dtype == dtype
    assert tokenizer.decode(shards.document(1)[1:-1]) == f"extra{vocab_size - 400}"


def test_no_documents_and_no_eos(tokenizer, tmp_path):
    assert write_shards(tmp_path / "x", [], tokenizer) == {"documents": 0, "tokens": 0, "bytes": 0}
    assert len(TokenShards(tmp_path / "x")) == 0
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="end-of-text"):
        write_shards(tmp_path / "y", ["a"], tokenizer)
    assert not (tmp_path / "y").exists()


def test_an_error_leaves_nothing_half_written(tokenizer, tmp_path):
    def texts():
        yield from TEXTS
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_shards(tmp_path / "x", texts(), tokenizer, tokens_per_shard=2000)
    assert list(tmp_path.iterdir()) == []


def test_damage_is_noticed(tokenizer, tmp_path):
    write_shards(tmp_path / "x", TEXTS, tokenizer)
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
    write_shards(tmp_path / "x", TEXTS, tokenizer)
    described = json.loads((tmp_path / "x/shards.json").read_text())
    assert described["documents"] == len(TEXTS) and described["dtype"] == "<u2"
    assert described["eos_token_id"] == tokenizer.eos_token_id
    assert [shard["name"] for shard in described["shards"]] == ["shard-00000"]
