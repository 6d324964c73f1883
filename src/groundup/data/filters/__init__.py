"""Quality rules by the names of the papers that they come from; each drops a document for a reason in words."""

from collections.abc import Callable

from groundup.data.filters.c4 import c4
from groundup.data.filters.fineweb import fineweb
from groundup.data.filters.gopher import gopher
from groundup.data.filters.repetition import gopher_repetition
from groundup.data.filters.text import Text

FILTERS: dict[str, Callable[[Text], tuple[Text, str]]] = {
    "gopher": gopher,
    "gopher_repetition": gopher_repetition,
    "c4": c4,
    "fineweb": fineweb,
}

__all__ = ["FILTERS", "Text"]
