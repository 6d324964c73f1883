"""MinHash signatures of blocks of texts, cut into bands: texts that share a band's key are candidates.

Of K minima a text needs one hash a shingle, not K: one permutation hashing (Li, Owen, Zhang, "One Permutation Hashing",
NeurIPS 2012, arXiv 1208.1259) deals the shingles into K bins and keeps the least hash of each. A bin that got none
copies another's, found by a random order of bins of its own ("optimal densification", Shrivastava, ICML 2017,
arXiv 1703.04664), so short texts have whole signatures too. Two texts of Jaccard similarity s then agree in a bin
with probability s, and share the key of a band of r bins, of which there are b, with probability 1 - (1 - s^r)^b
(Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from groundup.data.dedup.shingles import I64, U64, Shingles, mixed

MOST_BINS = 128
MISSED_AT_THRESHOLD = 0.005
"""Of pairs that are exactly as similar as the threshold, so many share no band; of more similar ones far fewer."""
EMPTY = np.uint32(0xFFFFFFFF)
NO_KEY = np.uint64(0)
"""Key of a text without words: in no bucket."""


@dataclass(frozen=True)
class Bands:
    """`count` bands of `rows` bins each."""

    count: int
    rows: int

    def found(self, similarity: float) -> float:
        """Probability that a pair of that Jaccard similarity becomes a candidate."""
        return 1.0 - (1.0 - similarity**self.rows) ** self.count


def bands_for(threshold: float) -> Bands:
    """As many bands as MISSED_AT_THRESHOLD asks; as many rows as MOST_BINS then allow: each keeps unlike apart."""
    best = Bands(MOST_BINS, 1)
    for rows in range(1, MOST_BINS):
        count = math.ceil(math.log(MISSED_AT_THRESHOLD) / math.log1p(-(threshold**rows)))
        if count * rows > MOST_BINS:
            return best
        best = Bands(count, rows)
    return best


def band_keys(shingles: Shingles, bands: Bands) -> U64:
    """The key of each band of each text, [bands, D]; NO_KEY throughout for a text without shingles."""
    signature_DK = signatures(shingles, bands.count * bands.rows).astype(np.uint64)
    # The band's number goes into the key, so that keys of all bands may stand in one table.
    key_DB = np.tile(np.arange(bands.count, dtype=np.uint64) << np.uint64(40), (len(signature_DK), 1))
    parts_DBR = signature_DK.reshape(-1, bands.count, bands.rows)
    for row in range(bands.rows):
        key_DB = mixed(key_DB + parts_DBR[:, :, row] + np.uint64(row + 1))
    key_DB[key_DB == NO_KEY] = 1
    key_DB[shingles.count_D() == 0] = NO_KEY
    return np.ascontiguousarray(key_DB.T)


def signatures(shingles: Shingles, bins: int) -> NDArray[np.uint32]:
    """The minima [D, bins]; EMPTY throughout for a text without shingles."""
    count_D = shingles.count_D()
    high_N = shingles.hash_N >> np.uint64(32)
    bin_N = (high_N * np.uint64(bins)) >> np.uint64(32)
    place_N = np.repeat(np.arange(len(count_D), dtype=np.int64) * bins, count_D) + bin_N.astype(np.int64)
    value_N = np.minimum(shingles.hash_N.astype(np.uint32), EMPTY - np.uint32(1))
    minimum = np.full(len(count_D) * bins, EMPTY, np.uint32)
    np.minimum.at(minimum, place_N, value_N)
    minimum_DK = minimum.reshape(len(count_D), bins)
    filled = np.flatnonzero(count_D)
    minimum_DK[filled] = _densified(minimum_DK[filled])
    return minimum_DK


def _densified(minimum_DK: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Each empty bin with the minimum of the first filled one in its own order of bins."""
    full = minimum_DK.copy()
    text, place = np.nonzero(minimum_DK == EMPTY)
    for donor_K in _donors(minimum_DK.shape[1]):
        if not len(text):
            break
        value = minimum_DK[text, donor_K[place]]
        full[text, place] = value
        still = value == EMPTY
        text, place = text[still], place[still]
    return full


@lru_cache(maxsize=4)
def _donors(bins: int) -> I64:
    """[attempt, bin]: where an empty bin looks; each bin's column is a permutation of all."""
    number = np.arange(bins * bins, dtype=np.uint64).reshape(bins, bins)
    return np.argsort(mixed(number + np.uint64(1)), axis=0, kind="stable")
