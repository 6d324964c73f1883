"""Which language a text is in, by py3langid: 97 languages, 4.6 MB in the package, nothing is fetched."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from groundup.errors import UserError

LOOKED_AT_CHARS = 2_000
"""From the middle of a document: beginnings are often titles and names."""


def language_of(text: str) -> str:
    """The ISO 639-1 code of the likeliest language."""
    import py3langid

    start = max(0, (len(text) - LOOKED_AT_CHARS) // 2)
    return str(py3langid.classify(text[start : start + LOOKED_AT_CHARS])[0])


def check_languages(codes: Sequence[str], where: str) -> None:
    """UserError for a code that no text could ever have."""
    import py3langid

    known = sorted(code for code, _ in py3langid.rank("text"))
    for code in codes:
        if code not in known:
            near = difflib.get_close_matches(code.lower()[:2], known, 1)
            raise UserError(
                f"language names {code!r}, which is no language that is recognised.",
                where=where,
                why=f"known are ISO 639-1 codes: {' '.join(known)}",
                fix=f"did you mean {near[0]}?" if near else "use one of them",
            )
