"""Tokens to text while they arrive: what is written is never taken back, and no character is cut in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

CONTEXT_TOKENS = 8
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Decoder(Protocol):
    """What is needed of a tokenizer."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = ..., **kwargs: bool) -> str: ...


class TextStream:
    """Feed token ids one by one; each call returns the text that has become certain.

    A token's text depends on its neighbours (spaces of SentencePiece, characters of several bytes), so tokens are
    decoded together with the few before them and only the difference is given out. Text that ends in an
    incomplete character is held back; bytes that never become one come out as replacement characters.
    """

    def __init__(self, tokenizer: Decoder, context: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        window = list(context[-CONTEXT_TOKENS:])
        while window and self._decode(window).startswith(REPLACEMENT):
            window.pop(0)  # the cut went through a character
        self.window = window
        self.given = len(window)  # tokens at the window's start whose text is out already

    def push(self, token: int) -> str:
        """The text that this token completes, often its own; empty while a character is incomplete."""
        self.window.append(token)
        return self._new_text(final=False)

    def finish(self) -> str:
        """What was held back."""
        return self._new_text(final=True)

    def _new_text(self, *, final: bool) -> str:
        old, new = self._decode(self.window[: self.given]), self._decode(self.window)
        if len(new) <= len(old) or (new.endswith(REPLACEMENT) and not final):
            return ""
        # From here on the last piece given out is context enough, and it starts between two characters.
        self.window = self.window[self.given :]
        self.given = len(self.window)
        return new[len(old) :]

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class StopStrings:
    """Watches one text for strings that end it, wherever tokens cut them.

    Args:
        context: the prompt's tokens, which decide on spaces; strings are looked for behind it only.
    """

    def __init__(self, tokenizer: Decoder, context: Sequence[int], strings: Sequence[str]) -> None:
        self._stream = TextStream(tokenizer, context)
        self._strings = strings
        self._kept = max(map(len, strings)) - 1
        self._tail = ""

    def reached(self, token: int) -> bool:
        """Whether the text with this token holds one of the strings."""
        self._tail += self._stream.push(token)
        if any(string in self._tail for string in self._strings):
            return True
        self._tail = self._tail[len(self._tail) - self._kept :] if self._kept else ""
        return False
