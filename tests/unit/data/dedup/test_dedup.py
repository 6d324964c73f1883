"""The search as a whole: against brute force, in any number of processes, with bad input."""

import json
from itertools import combinations

import numpy as np
import pytest

from groundup.config.schema import NearDuplicateSettings
from groundup.data.dedup import candidates, embedded, find_near_duplicates
from groundup.data.dedup.candidates import NEIGHBOURS, Unlike, rounds_of_pairs
from groundup.data.dedup.clusters import Clusters
from groundup.errors import UserError


def shingled(text, words=5):
    split = text.casefold().split()
    return {tuple(split[i : i + words]) for i in range(max(1, len(split) - words + 1))}


def brute_force(texts, threshold):
    """Every pair that is as similar, by sets of Python."""
    sets = [shingled(text) for text in texts]
    pairs = set()
    for a, b in combinations(range(len(texts)), 2):
        if min(len(sets[a]), len(sets[b])) < threshold * max(len(sets[a]), len(sets[b])):
            continue
        if len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b]):
            pairs.add((a, b))
    return pairs


def clusters_of(found):
    return [json.loads(line) for line in found.clusters.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_recall_and_precision_against_brute_force(planted, written, tmp_path, threshold):
    found = find_near_duplicates(
        written(planted), NearDuplicateSettings(threshold=threshold), tmp_path / "s", processes=1
    )
    true = brute_force(planted, threshold)
    clusters = Clusters(np.zeros(len(planted), np.int64))
    clusters.join(np.array(sorted(true)))
    expected = [each.tolist() for each in clusters.members()]
    named = [[member["id"] for member in cluster["members"]] for cluster in clusters_of(found)]
    together = {pair for each in named for pair in combinations(each, 2)}
    assert len(true) > 100
    assert len(true & together) >= 0.99 * len(true), "recall"
    whole = {pair for each in expected for pair in combinations(each, 2)}
    assert together <= whole, "nothing is joined but by pairs that are alike"


def test_the_longest_stays_and_of_equals_the_first(written, tmp_path):
    text = " ".join(f"word{i}" for i in range(60))
    texts = ["something else entirely", text, text + " more", text.upper(), "another", "? !", "? !"]
    found = find_near_duplicates(written(texts), NearDuplicateSettings(), tmp_path / "s")
    assert found.kept.tolist() == [0, 2, 4, 5, 6] and found.dropped.tolist() == [1, 3]
    assert found.kept_for.tolist() == [2, 2]
    (cluster,) = clusters_of(found)
    assert cluster["kept"] == 2 and [member["id"] for member in cluster["members"]] == [1, 2, 3]
    assert cluster["members"][0]["text"].startswith("word0") and cluster["members"][1]["characters"] == len(
        texts[2]
    )
    equal = find_near_duplicates(written(["x " + text, "y " + text]), NearDuplicateSettings(), tmp_path / "s")
    assert equal.kept.tolist() == [0]


def test_chinese_and_short_texts(written, tmp_path):
    poem = "床前明月光，疑是地上霜。举头望明月，低头思故乡。李白的诗，人人都会背诵，从小学到老，一字不差"
    texts = [poem, poem.replace("，", " "), poem + "。", "春眠不觉晓处处闻啼鸟", "Yes.", "yes", "No."]
    found = find_near_duplicates(written(texts), NearDuplicateSettings(), tmp_path / "s")
    assert found.kept.tolist() == [2, 3, 4, 6]


def test_settings_have_an_effect(planted, written, tmp_path):
    path = written(planted)

    def dropped(**settings):
        return len(
            find_near_duplicates(path, NearDuplicateSettings(**settings), tmp_path / "s", processes=1).dropped
        )

    assert dropped(threshold=0.5) > dropped(threshold=0.8) > dropped(threshold=0.95) > 0
    assert dropped(shingle_words=1) > dropped() > dropped(shingle_words=10)


def test_any_number_of_processes_and_any_memory(planted, written, tmp_path, monkeypatch):
    path = written(planted * 2)
    alone = find_near_duplicates(path, NearDuplicateSettings(), tmp_path / "s", processes=1)
    text = alone.clusters.read_bytes()
    assert len(alone.kept) < len(planted)
    monkeypatch.setattr(embedded, "BYTES_WORTH_A_PROCESS", 1)
    many = find_near_duplicates(path, NearDuplicateSettings(), tmp_path / "s", processes=2)
    assert np.array_equal(many.keep_D, alone.keep_D) and many.clusters.read_bytes() == text
    monkeypatch.setattr(embedded, "DOCUMENTS_AT_ONCE", 100)
    parts = find_near_duplicates(path, NearDuplicateSettings(), tmp_path / "s", processes=1)
    assert parts.clusters.read_bytes() == text
    assert [each.name for each in (tmp_path / "s").iterdir()] == ["clusters.jsonl"], "nothing else is left"


def test_progress_counts_every_document(planted, written, tmp_path):
    counts = []
    find_near_duplicates(
        written(planted), NearDuplicateSettings(), tmp_path / "s", on_documents=counts.append
    )
    assert sum(counts) == len(planted)


def test_a_bucket_of_any_size_is_compared_in_linear_time():
    key, number = np.full(1000, 9, np.uint64), np.arange(1000)
    pairs = {tuple(pair) for each in rounds_of_pairs(key, number) for pair in each.tolist()}
    assert len(pairs) <= 1000 * (NEIGHBOURS + 1) and all(a < b for a, b in pairs)
    few = [tuple(pair) for each in rounds_of_pairs(key[:8], number[:8]) for pair in each.tolist()]
    assert sorted(few) == list(combinations(range(8), 2)), "small buckets are compared in full"


def test_nothing_to_do(written, tmp_path):
    assert find_near_duplicates(written([]), NearDuplicateSettings(), tmp_path / "s").kept.tolist() == []
    assert find_near_duplicates(written(["one"]), NearDuplicateSettings(), tmp_path / "s").kept.tolist() == [
        0
    ]


@pytest.mark.parametrize("line", ["{", '{"words": 1}', '{"text": 3}', "[1]"])
def test_a_bad_line_is_named(written, tmp_path, line):
    path = written(["good"] * 3)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match="no document") as caught:
        find_near_duplicates(path, NearDuplicateSettings(), tmp_path / "s")
    assert caught.value.where.endswith("documents.jsonl:4")


def test_a_full_disk_is_told_beforehand(planted, written, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "SPARE_BYTES", 1 << 60)
    with pytest.raises(UserError, match="too little room"):
        find_near_duplicates(written(planted), NearDuplicateSettings(), tmp_path / "s")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError):
        find_near_duplicates(tmp_path / "no.jsonl", NearDuplicateSettings(), tmp_path / "s")


def test_a_pair_that_is_not_alike_is_compared_once(monkeypatch):
    unlike = Unlike(10)
    pairs = np.array([[0, 1], [2, 9], [3, 4]])
    assert unlike.without(pairs).tolist() == pairs.tolist()
    unlike.add(pairs[:2])
    unlike.next_band()
    assert unlike.without(pairs).tolist() == [[3, 4]]
    monkeypatch.setattr(candidates, "MOST_UNLIKE", 2)
    unlike.add(pairs[2:])
    unlike.next_band()
    assert unlike.without(pairs).tolist() == pairs[:2].tolist(), "earlier ones were forgotten for it"


def test_any_order_of_keys_gives_the_same_candidates():
    chance = np.random.default_rng(0)
    key = chance.integers(0, 60, 300).astype(np.uint64)  # 0 is the key of a text without words
    number = np.arange(300) * 3
    found = {tuple(pair) for pairs in rounds_of_pairs(key, number) for pair in pairs.tolist()}
    expected = set()
    for value in range(1, 60):
        bucket = number[key == value].tolist()
        near = {(a, b) for at, a in enumerate(bucket) for b in bucket[at + 1 : at + 1 + NEIGHBOURS]}
        expected |= near | {(bucket[0], other) for other in bucket[1:]}
    assert found == expected
