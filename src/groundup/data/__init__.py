"""Text only, never tensors: read, recognise, clean, split, and a ledger that loses no row."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.data.baselines import compression_baselines
    from groundup.data.clean import clean_text, content_hash
    from groundup.data.files import data_paths
    from groundup.data.ledger import Ledger
    from groundup.data.raw import RawRow
    from groundup.data.read import (
        holds_pairs,
        read_conversations,
        read_documents,
        read_labelled,
        read_pairs,
        recognise_first,
    )
    from groundup.data.recognise import Recognised
    from groundup.data.split import is_held_out, split_holdout, split_rows
    from groundup.data.types import Conversation, Document, Message, Origin, Pair, Prompt

__all__ = [
    "Conversation",
    "Document",
    "Ledger",
    "Message",
    "Origin",
    "Pair",
    "Prompt",
    "RawRow",
    "Recognised",
    "clean_text",
    "compression_baselines",
    "content_hash",
    "data_paths",
    "holds_pairs",
    "is_held_out",
    "read_conversations",
    "read_documents",
    "read_labelled",
    "read_pairs",
    "recognise_first",
    "split_holdout",
    "split_rows",
]

_MODULES = {
    "baselines": ("compression_baselines",),
    "clean": ("clean_text", "content_hash"),
    "files": ("data_paths",),
    "ledger": ("Ledger",),
    "raw": ("RawRow",),
    "read": (
        "holds_pairs",
        "read_conversations",
        "read_documents",
        "read_labelled",
        "read_pairs",
        "recognise_first",
    ),
    "recognise": ("Recognised",),
    "split": ("is_held_out", "split_holdout", "split_rows"),
    "types": ("Conversation", "Document", "Message", "Origin", "Pair", "Prompt"),
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: every process that compares texts would else first load recipes and the hub."""
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
