"""Documents cut to the context: nothing is predicted twice, and nothing is left out."""

import copy

import numpy as np
import pytest
from tokenizers import processors

from groundup.stages.pretrain import Pieces
from groundup.tokenizer import TokenShards, write_shards

TEXTS = ["a", "question answer 12345", "", "la la la la 67890 " * 9, "system", "0123456789" * 4]


@pytest.fixture(params=["bos", "no bos"])
def shards(request, tmp_path, tokenizer):
    """Several small shards, so that documents of each are read. Without BOS an empty document predicts nothing."""
    if request.param == "no bos":
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    write_shards(tmp_path / "shards", lambda first: TEXTS[first:], tokenizer, source="s", tokens_per_shard=40)
    return TokenShards(tmp_path / "shards")


@pytest.mark.parametrize("max_length", [1, 2, 3, 7, 8, 9, 1000])
def test_every_token_but_the_first_is_predicted_once(shards, max_length):
    pieces = Pieces(shards, max_length)
    predicted, joined = [], []
    for record, size in zip(pieces.records(range(len(pieces.sizes))), pieces.sizes, strict=True):
        (chain,) = record.chains
        assert list(chain.scored) == [False] + [True] * int(size)
        assert 1 <= size <= max_length
        joined.append(chain.token[0])
        predicted += chain.token[chain.scored].tolist()
    documents = [np.asarray(shards.document(i)).tolist() for i in range(len(shards))]
    assert len(documents) == len(TEXTS)
    assert predicted == [token for document in documents for token in document[1:]]
    # Each piece begins with the token that stands before what it predicts.
    starts = [document[at] for document in documents for at in range(0, len(document) - 1, max_length)]
    assert joined == starts


def test_records_are_numbered_as_they_were_asked_for(shards):
    pieces = Pieces(shards, 4)
    last = len(pieces.sizes) - 1
    back, first = pieces.records([last, 0])
    assert (back.index, first.index) == (last, 0)
    assert first.chains[0].token.tolist() == np.asarray(shards.document(0))[:5].tolist()
