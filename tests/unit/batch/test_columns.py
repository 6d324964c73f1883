"""What a record says beside its tokens: columns, and how much its tokens count."""

import numpy as np
import torch

from groundup.batch import Chain, Record, pack_step


def chain(count, prompt=1):
    return Chain(np.arange(count, dtype=np.int32), np.arange(count) >= prompt)


def test_tokens_count_by_the_share_of_their_chain():
    """A pair whose rejected tokens count nothing, and one whose tokens do: the step's weights sum to 1."""
    shares = [(1.0, 0.0), (1.0, 0.5)]
    records = [Record(i, (chain(4), chain(3, 2)), token_share=share) for i, share in enumerate(shares)]
    rows = pack_step(records, 100)
    weight_N = torch.cat([row.weight_N for row in rows])
    assert torch.allclose(weight_N * 6.5, torch.tensor([1.0, 1, 1, 0, 1, 1, 1, 0.5]))
    plain = [Record(i, one.chains) for i, one in enumerate(records)]
    assert torch.equal(pack_step(plain, 100)[0].weight_N, torch.full((8,), 1 / 8))


def test_group_columns_have_a_number_a_record():
    records = [Record(i, (chain(3), chain(3)), {"ref_logp": (1.0, 2.0)}, {"margin": i / 2}) for i in range(3)]
    (row,) = pack_step(records, 100)
    assert row.group["margin"].tolist() == [0.0, 0.5, 1.0]
    assert row.sequence["ref_logp"].tolist() == [1.0, 2.0] * 3


def test_a_target_of_minus_one_reads_the_last_token():
    """Chains that share a beginning, one of which is the beginning of the other."""
    sides = ([5, 6, 7, 8], [5, 6], [5, 6, 9])
    chains = [Chain(np.array([*side, -1], dtype=np.int32), np.array([*side, -1]) < 0) for side in sides]
    for layout in ("shared", "packed"):
        (row,) = pack_step([Record(0, tuple(chains))], 100, layout)
        assert row.token_T[row.source_N].tolist() == [8, 6, 9]
        assert row.target_N.tolist() == [-1, -1, -1] and row.reads_Q.tolist() == [1, 1, 1]
        assert row.position_T[row.source_N].tolist() == [3, 1, 2]
