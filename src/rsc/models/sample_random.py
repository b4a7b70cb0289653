"""Random numbers of a sample, from its own seed: which rank, microbatch or part of a sequence computes with
it does not matter.

A training batch carries `draw_B`, int64 [B], a seed for each of its samples (train/batches/sample_seeds.py).
What augments, hides or drops takes its numbers from there by purpose and place, and nothing draws from a
global generator.
"""

from __future__ import annotations

import enum

import torch

# Constants of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_FRACTION_BITS = 24  # what float32 holds exactly


class Purpose(enum.IntEnum):
    """What a number is for; each has numbers of its own."""

    HIDE = 0
    """Tokens that a masked-token model guesses."""
    DROP = 1
    """Positions of text that are left out."""
    MOVE = 2
    """Mirrored and shifted pictures."""
    BLANK = 3
    """Stretches of sound."""
    DROPOUT = 4
    """Features of the mean that a head reads."""


def uniforms(draw_B: torch.Tensor, places: torch.Tensor | int, *, purpose: Purpose) -> torch.Tensor:
    """Float32 in [0, 1), one for each sample and place. `places`: int64 [N] or [B, N], or N for 0..N-1."""
    if isinstance(places, int):
        places = torch.arange(places, device=draw_B.device)
    counter = (places + (int(purpose) << 40)) * _signed(_GOLDEN)
    return (mixed(draw_B[:, None] + counter) >> (64 - _FRACTION_BITS) & _mask(_FRACTION_BITS)).float() / (
        1 << _FRACTION_BITS
    )


def sample_seeds(seed: int, numbers_B: torch.Tensor) -> torch.Tensor:
    """`draw_B` of the samples with these numbers, under a seed of 63 bits."""
    return mixed(seed + (numbers_B + 1) * _signed(_GOLDEN))


def mixed(values: torch.Tensor) -> torch.Tensor:
    """The finaliser of splitmix64 on int64; products wrap, as they should."""
    values = (values ^ _shifted(values, 30)) * _signed(_MIX_1)
    values = (values ^ _shifted(values, 27)) * _signed(_MIX_2)
    return values ^ _shifted(values, 31)


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, with zeros coming in: torch's shift repeats the sign."""
    return (values >> bits) & _mask(64 - bits)


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
