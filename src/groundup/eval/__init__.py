"""Held-out numbers and generations side by side."""

from groundup.eval.heldout import (
    bits_per_byte,
    evaluate_records,
    logps_by_record,
    packed_rows,
    record_logps,
)

__all__ = ["bits_per_byte", "evaluate_records", "logps_by_record", "packed_rows", "record_logps"]
