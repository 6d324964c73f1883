"""Signatures estimate similarity without bias; bands find what they promise."""

import numpy as np
import pytest

from groundup.data.dedup.minhash import EMPTY, NO_KEY, Bands, band_keys, bands_for, signatures
from groundup.data.dedup.shingles import Shingles, mixed, shingles_of


def pair_of(size, similarity, chance):
    """Shingles of two texts of `size` each, and their exact Jaccard similarity."""
    common = round(2 * size * similarity / (1 + similarity))
    hashes = mixed(chance.integers(0, 2**63, 2 * size - common).astype(np.uint64))
    both = np.concatenate([hashes[:size], hashes[size - common :]])
    return Shingles(both, np.array([0, size, 2 * size])), common / len(hashes)


@pytest.mark.parametrize("size", [12, 100, 1000])
@pytest.mark.parametrize("similarity", [0.3, 0.8])
def test_signatures_estimate_jaccard(size, similarity):
    chance = np.random.default_rng(size)
    errors = []
    for _ in range(150):
        shingles, exact = pair_of(size, similarity, chance)
        one, other = signatures(shingles, 108)
        errors.append((one == other).mean() - exact)
    expected = (similarity * (1 - similarity) / 108) ** 0.5
    assert abs(np.mean(errors)) < 4 * expected / 150**0.5
    assert np.std(errors) < 1.4 * expected


def test_every_bin_is_filled_unless_there_is_no_word():
    one, many, none = signatures(shingles_of(["a", "a b c d e f g", "?"], 5), 108)
    assert (one != EMPTY).all() and len(set(one.tolist())) == 1
    assert (many != EMPTY).all() and len(set(many.tolist())) == 3
    assert (none == EMPTY).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 0.99])
def test_bands_find_pairs_at_the_threshold(threshold):
    bands = bands_for(threshold)
    assert bands.count * bands.rows <= 128
    assert bands.found(threshold) >= 0.995
    assert bands.found(threshold * 0.25) < 0.3


def test_the_probability_is_the_papers():
    """ "Mining of Massive Datasets", figure 3.8: 20 bands of 5 rows."""
    assert Bands(20, 5).found(0.4) == pytest.approx(0.186, abs=5e-4)
    assert Bands(20, 5).found(0.8) == pytest.approx(0.9996, abs=5e-5)


def test_measured_frequency_is_the_promised_one():
    chance, bands, found = np.random.default_rng(3), bands_for(0.8), 0
    for _ in range(200):
        shingles, exact = pair_of(200, 0.5, chance)
        one, other = band_keys(shingles, bands).T
        found += bool((one == other).any())
    assert found / 200 == pytest.approx(bands.found(exact), abs=0.1)


def test_keys_of_different_bands_differ():
    keys = band_keys(shingles_of(["a", "a", "!"], 5), bands_for(0.8))
    assert (keys[:, 0] == keys[:, 1]).all() and len(set(keys[:, 0].tolist())) == len(keys)
    assert (keys[:, 2] == NO_KEY).all()
