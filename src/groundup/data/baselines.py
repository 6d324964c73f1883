"""What general-purpose compressors need for a text, beside a language model's bits per byte."""

from __future__ import annotations

import gzip
import lzma


def compression_baselines(data: bytes) -> dict[str, float]:
    """Bits per byte of `data` under gzip and xz at their strongest settings. `data` must not be empty."""
    sizes = {
        "gzip": len(gzip.compress(data, compresslevel=9, mtime=0)),
        "xz": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}
