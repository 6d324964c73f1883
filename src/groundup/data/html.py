"""The visible text of a page of HTML."""

from __future__ import annotations

import re

_PAGE = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL
)
_PREFORMATTED = re.compile(r"(<(pre|textarea)\b.*?</\2\s*>)", re.IGNORECASE | re.DOTALL)
_SPACE = re.compile(r"\s+")
_NEVER_SHOWN = "head, script, style, noscript, template, svg, iframe, object, select, button"
_BLOCKS = (
    "address, article, aside, blockquote, dd, div, dl, dt, fieldset, figcaption, figure, footer, form, h1, h2, h3, h4,"
    " h5, h6, header, hr, li, main, nav, ol, p, pre, section, table, tr, ul"
)
_AROUND_LINE_END = re.compile(r" *\n *")


def is_html(text: str) -> bool:
    """Whether the text is a whole page: it begins with a doctype or with <html>. A tag or two in a text are not."""
    return text.lstrip()[:1] == "<" and _PAGE.match(text[:5000]) is not None


def html_text(page: str) -> str:
    """What a browser would show, a line a block, entities resolved; nothing is judged to be an advertisement."""
    from selectolax.lexbor import LexborHTMLParser

    pieces = _PREFORMATTED.split(page)
    # split() gives the text between, the element, and its name, in turns.
    source = "".join(
        _SPACE.sub(" ", piece) if i % 3 == 0 else piece for i, piece in enumerate(pieces) if i % 3 < 2
    )
    body = LexborHTMLParser(source).body
    if body is None:
        return ""
    for node in body.css(_NEVER_SHOWN):
        node.decompose()
    for node in body.css("br"):
        node.replace_with("\n")
    for node in body.css("td, th"):
        node.insert_after("\t")
    for node in body.css(_BLOCKS):
        node.insert_before("\n")
        node.insert_after("\n")
    return _AROUND_LINE_END.sub("\n", body.text()).strip()
