from __future__ import annotations

import torch

from rsc.models.sample_random import Purpose, sample_seeds, uniforms
from rsc.train.batches.sample_seeds import Draws


def test_seeds_are_those_of_splitmix64() -> None:
    """The first three outputs for seed 0, as in the tests of Java's SplittableRandom and of many others."""
    found = [seed % (1 << 64) for seed in sample_seeds(0, torch.arange(3)).tolist()]
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_are_even_and_each_purpose_has_its_own() -> None:
    draw_B = sample_seeds(5, torch.arange(64))
    drawn = torch.stack([uniforms(draw_B, 100, purpose=purpose) for purpose in Purpose])
    assert ((drawn >= 0) & (drawn < 1)).all()
    counts = torch.histc(drawn, bins=16, min=0, max=1) * 16 / drawn.numel()
    assert (counts - 1).abs().max() < 0.06
    flat = drawn.flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.05
    assert flat.unique().numel() > 0.99 * flat.numel()


def test_a_part_of_the_places_draws_what_the_whole_draws() -> None:
    draw_B = sample_seeds(5, torch.arange(2))
    whole = uniforms(draw_B, 10, purpose=Purpose.DROP)
    part = uniforms(draw_B, torch.tensor([[0, 9], [1, 8]]), purpose=Purpose.DROP)
    assert torch.equal(part, torch.stack([whole[0, [0, 9]], whole[1, [1, 8]]]))


def test_a_sample_has_one_seed_on_any_number_of_ranks_and_microbatches() -> None:
    alone = Draws(7).of(12)
    for rank in range(2):
        first = Draws(7, first=rank, stride=2)
        parts = [first.of(2), first.after(2).of(2), first.after(2).after(2).of(2)]
        assert torch.equal(torch.cat(parts), alone[rank::2])
