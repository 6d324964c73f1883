"""Records to trees of segments to packed rows: the only room that makes parents."""

from groundup.batch.forest import LAYOUTS, Chain, Record, segment_tokens
from groundup.batch.rows import build_row, deal, pack_step, text_row
from groundup.batch.stream import Stream
from groundup.batch.types import Batch, Stats

__all__ = [
    "LAYOUTS",
    "Batch",
    "Chain",
    "Record",
    "Stats",
    "Stream",
    "build_row",
    "deal",
    "pack_step",
    "segment_tokens",
    "text_row",
]
