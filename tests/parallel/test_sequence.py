"""Cutting a sequence and putting it together again, without any process."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rsc.parallel.sequence import ChunkPairs, split_batch

SIZES = st.integers(1, 5)


@given(size=SIZES, parts=SIZES, length=st.integers(1, 60))
def test_pairs_of_all_ranks_are_the_sequence(size: int, parts: int, length: int) -> None:
    padded = ChunkPairs(rank=0, size=size).fitting(length, parts=parts)
    assert padded >= length
    assert padded % (size * parts) == 0
    whole = torch.arange(padded)[None] if size > 1 else torch.arange(2 * padded)[None]
    ranks = [ChunkPairs(rank=rank, size=size).cut(whole, dim=1) for rank in range(size)]
    assert len({part.shape for part in ranks}) == 1
    joined = ChunkPairs(rank=0, size=size).joined(torch.cat(ranks, dim=1), dim=1)
    assert torch.equal(joined, whole)


@given(size=st.integers(2, 5), chunk=st.integers(1, 7))
def test_causal_work_is_the_same_on_every_rank(size: int, chunk: int) -> None:
    """A query at place p looks at p + 1 keys."""
    places = torch.arange(2 * size * chunk)
    pairs = [ChunkPairs(rank=rank, size=size) for rank in range(size)]
    assert len({int((pair.cut(places, dim=0) + 1).sum()) for pair in pairs}) == 1
    assert {sum(pair.ends) for pair in pairs} == {2 * size + 1}
    for pair in pairs:
        own = pair.cut(places, dim=0)
        assert [int(half[-1]) + 1 for half in own.chunk(2)] == [end * chunk for end in pair.ends]


def test_texts_of_uneven_length_become_documents_and_padding() -> None:
    batch = {
        "tokens_BL": torch.arange(10).reshape(2, 5),
        "targets_BL": torch.arange(10).reshape(2, 5),
        "text_length_B": torch.tensor([5, 3]),
    }
    parts = [split_batch(batch, pairs=ChunkPairs(rank, 2), parts=1, ignored=-100) for rank in range(2)]
    assert "text_length_B" not in parts[0]
    assert parts[0]["positions_L"].tolist() == [[0, 1, 6, 7]] * 2
    assert parts[1]["tokens_BL"].tolist() == [[2, 3, 4, 0], [7, 8, 9, 0]]
    assert parts[1]["targets_BL"].tolist() == [[2, 3, 4, -100], [7, 8, 9, -100]]
    assert parts[1]["document_ids_BL"].tolist() == [[0, 0, 0, -1], [0, -1, -1, -1]]
