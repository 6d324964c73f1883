"""SentencePiece's unigram and BPE models (arXiv 1808.06226), trained by it and rewritten as Hugging Face tokenizers.

Text stays as it is: no normalization, no space in front, all white space kept, and bytes for what has no piece. One
character cannot come back: U+2581, which SentencePiece writes for a space.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, normalizers

from groundup.errors import UserError
from groundup.tokenizer.encode import UNREACHABLE

SPACE = "\u2581"
TRAINER_THREADS = 16
"""Not as many as the machine has: the sums of unigram training depend on it, and the result would."""

REQUIRED = "\n<>0123456789ABCDEFxunk"
"""Always pieces of their own, so that a text which spells `<0x0A>` or `<unk>` need not become that piece."""

_CHUNK = re.compile(r"(?s).{1,1000}(?=\s|\Z)|.{1,1000}")
"""SentencePiece skips long lines: at most 1,000 characters, cut before white space where there is any."""


def train_sentencepiece(texts: Iterable[str], algorithm: str, vocab_size: int) -> tuple[Tokenizer, bytes]:
    """A tokenizer without special tokens, and SentencePiece's own file; both give the same ids.

    algorithm: unigram (arXiv 1804.10959) or sentencepiece_bpe. vocab_size: with 256 bytes and <unk>, which no text
    needs. Memory grows with the text, which is held. Raises UserError where the size is too small for the text.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chunks(texts),
            model_writer=written,
            model_type="unigram" if algorithm == "unigram" else "bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,  # fewer where the text has no more to learn
            byte_fallback=True,
            required_chars=REQUIRED,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=2**13,
            shuffle_input_sentence=False,
            num_threads=TRAINER_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            "SentencePiece cannot train this tokenizer.",
            why=str(error).strip().splitlines()[-1],
            fix="raise vocab_size of the tokenizer stage, or give it more text",
        ) from error
    model = written.getvalue()
    return rewritten(model, algorithm), model


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _CHUNK.findall(text)


def rewritten(model: bytes, algorithm: str) -> Tokenizer:
    """The Hugging Face tokenizer of a SentencePiece model that was trained as above.

    Only normal pieces can be met in a text: `tokenizers` would else take the letters `<0x0A>` for that byte.
    """
    import sentencepiece

    source = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [source.id_to_piece(number) for number in range(len(source))]
    normal = [
        not (source.is_byte(n) or source.is_unknown(n) or source.is_control(n)) for n in range(len(source))
    ]
    if algorithm == "unigram":
        scores = [source.get_score(n) if normal[n] else UNREACHABLE for n in range(len(source))]
        core = Tokenizer(
            models.Unigram(list(zip(pieces, scores)), unk_id=source.unk_id(), byte_fallback=True)
        )
    else:
        vocab = {piece: number for number, piece in enumerate(pieces)}
        made = [piece for piece, is_normal in zip(pieces, normal) if is_normal]
        core = Tokenizer(models.BPE(vocab, _merges(made, vocab), byte_fallback=True, unk_token=pieces[0]))
    core.normalizer = normalizers.Replace(" ", SPACE)
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return core


def _merges(pieces: list[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make each piece from two others, the earlier pieces first, as SentencePiece scores them."""
    known = set(pieces)
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        cuts = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        pairs = [(left, right) for left, right in cuts if left in known and right in known]
        merges += sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges
