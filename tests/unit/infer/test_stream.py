"""Streaming text equals the text of all tokens at once, and never shows half a character."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from groundup.infer.stream import REPLACEMENT, TextStream

TEXT = "The café: 你好，世界! 👩‍👩‍👧 fine… naïve  spaces\n\tend"


def byte_level() -> PreTrainedTokenizerFast:
    """Every byte is a token of its own: the hardest case."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)} | {"<|eos|>": len(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|eos|>")


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Words that carry their space, bytes for what the vocabulary lacks: as Llama 2's."""
    pieces = ["<s>", *[f"<0x{value:02X}>" for value in range(256)], "▁The", "▁cat", "▁sat", "s", "."]
    inner = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<s>"))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")


def stream(
    tokenizer: PreTrainedTokenizerFast, tokens: list[int], context: list[int] | None = None
) -> list[str]:
    text = TextStream(tokenizer, context or [])
    return [*[text.push(token) for token in tokens], text.finish()]


def test_bytes_come_out_as_whole_characters():
    tokenizer = byte_level()
    tokens = tokenizer(TEXT).input_ids
    assert len(tokens) == len(TEXT.encode())
    pieces = stream(tokenizer, tokens)
    assert "".join(pieces) == TEXT
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert pieces[0] == "T"  # what is certain is not held back


def test_an_emoji_waits_for_its_last_byte():
    tokenizer = byte_level()
    assert stream(tokenizer, tokenizer("🙂").input_ids) == ["", "", "", "🙂", ""]


def test_bytes_that_are_no_text_come_out_as_replacements_and_do_not_stop_the_rest():
    tokenizer = byte_level()
    broken = tokenizer("你").input_ids[:2]
    assert "".join(stream(tokenizer, [*tokenizer("a").input_ids, *broken])) == "a" + REPLACEMENT
    assert "".join(stream(tokenizer, [*broken, *tokenizer(" b").input_ids])) == REPLACEMENT + " b"


def test_special_tokens_are_silent():
    tokenizer = byte_level()
    tokens = [*tokenizer("a").input_ids, tokenizer.eos_token_id, *tokenizer("b").input_ids]
    assert "".join(stream(tokenizer, tokens)) == "ab"


def test_ids_that_the_tokenizer_does_not_have_are_silent():
    """A model's vocabulary is often rounded up."""
    tokenizer = byte_level()
    assert "".join(stream(tokenizer, [*tokenizer("a").input_ids, 9999, *tokenizer("b").input_ids])) == "ab"


@pytest.mark.parametrize("context", [[], ["<s>"], ["<s>", "▁The"]])
def test_spaces_of_word_pieces(context: list[str]):
    tokenizer = sentencepiece_like()
    ids = tokenizer.convert_tokens_to_ids
    pieces = stream(tokenizer, ids(["▁cat", "s", "▁sat", "."]), ids(context))
    assert pieces == [" cat" if "▁The" in context else "cat", "s", " sat", ".", ""]


def test_long_runs_of_byte_pieces():
    tokenizer = sentencepiece_like()
    run = "你好世界" * 8
    tokens = tokenizer.convert_tokens_to_ids([f"<0x{value:02X}>" for value in run.encode()])
    pieces = stream(tokenizer, tokens)
    assert "".join(pieces) == run
    assert pieces[:6] == ["", "", "你", "", "", "好"]
    # a context that is cut inside a character
    assert "".join(stream(tokenizer, tokens[27:], tokens[:27])) == run[9:]
