"""Text only, never tensors: read, recognise, clean, split, and a ledger that loses no row."""

from groundup.data.baselines import compression_baselines
from groundup.data.clean import clean_text, content_hash
from groundup.data.files import data_paths
from groundup.data.ledger import Ledger
from groundup.data.raw import RawRow
from groundup.data.read import holds_pairs, read_conversations, read_documents, read_pairs, recognise_first
from groundup.data.recognise import Recognised, recognise
from groundup.data.split import is_held_out, split_holdout
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
    "read_pairs",
    "recognise",
    "recognise_first",
    "split_holdout",
]
