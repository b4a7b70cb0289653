"""Stems: one input each, turned into vectors of the trunk's width.

Shapes: B batch, L positions, D width; images H x W x C; sound S samples, T frames, M mel filters.
A stem's `forward` gives [B, L, D]; which positions are real is told by `Batch` (models/build.py).
Random augmentation draws from torch's global generator, which the loop seeds by (seed, step, rank).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.config import NUM_BYTES, AudioConfig, ImageConfig, TextConfig
from rsc.models.convolution import ConvBody


class TextStem(nn.Module):
    """Token ids [B, L] -> [B, L, D] by a table, or [B, W, D] where a position is a word. Rows from
    `vocabulary` on are padding; the first of them stands for a hidden token where a head needs one."""

    def __init__(self, config: TextConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.rows, width)
        self.ngrams = Ngrams(config, width=width) if config.ngrams or config.words else None

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        if self.config.positions == "words":
            return self._words(tokens_BL)
        if self.training and self.config.drop:
            dropped_BL = torch.rand(tokens_BL.shape, device=tokens_BL.device) < self.config.drop
            tokens_BL = tokens_BL.masked_fill(dropped_BL, self.config.vocabulary)
        hidden_BLD: torch.Tensor = self.embedding(tokens_BL)
        if self.ngrams is None:
            return hidden_BLD
        return hidden_BLD + self.ngrams.blend(self.ngrams(tokens_BL))  # type: ignore[no-any-return]

    def _words(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        place = {"number_BL": word_numbers(tokens_BL), "is_byte_BL": tokens_BL < NUM_BYTES}
        hidden_BWD = sum_words(self.embedding(tokens_BL), **place)
        if self.ngrams is not None:
            hidden_BWD = hidden_BWD + self.ngrams.blend(sum_words(self.ngrams(tokens_BL), **place))
        if self.training and self.config.drop:
            kept_BW1 = torch.rand(*hidden_BWD.shape[:2], 1, device=tokens_BL.device) >= self.config.drop
            hidden_BWD = hidden_BWD * kept_BW1
        return hidden_BWD

    @staticmethod
    def positions(tokens_BL: torch.Tensor, *, config: TextConfig) -> torch.Tensor | None:
        """Positions that hold text, for padded rows of bytes [B]; None where each token is one."""
        return word_numbers(tokens_BL)[:, -1] + 1 if config.positions == "words" else None


class Ngrams(nn.Module):
    """For each position the summed vectors of the token sequences, and of the words, that end there,
    [B, L] -> [B, L, F]; `blend` brings them to the trunk's width."""

    def __init__(self, config: TextConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        tables = len(config.ngrams) + config.words
        self.embedding = nn.Embedding(config.ngram_rows * tables, config.ngram_width)
        self.blend = nn.Linear(config.ngram_width, width, bias=False)

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        rows, parts = self.config.ngram_rows, []
        if self.config.ngrams:
            rows_NBL = ngram_rows(tokens_BL, lengths=self.config.ngrams, rows=rows)
            parts.append(self.embedding(rows_NBL).sum(0))
        if self.config.words:
            rows_WBL, ends_WBL = word_rows(tokens_BL, longest=self.config.words, rows=rows)
            vectors_WBLF = self.embedding(rows_WBL + len(self.config.ngrams) * rows)
            parts.append((vectors_WBLF * ends_WBL[..., None]).sum(0))
        return torch.stack(parts).sum(0)


def word_numbers(tokens_BL: torch.Tensor) -> torch.Tensor:
    """Number of the word a byte belongs to [B, L]: 0 before the first; what follows a word belongs to it."""
    return _word_starts(tokens_BL).cumsum(1)


def sum_words(values_BLF: torch.Tensor, *, number_BL: torch.Tensor, is_byte_BL: torch.Tensor) -> torch.Tensor:
    """Sum of the vectors of each word's bytes over the root of their number, [B, L, F] -> [B, W, F], W the
    most words of a row and one for what stands before them. Padding counts in nothing."""
    B, _, features = values_BLF.shape
    count = int(number_BL.max()) + 1
    weight_BL = is_byte_BL.to(values_BLF.dtype)
    index_BLF = number_BL[..., None].expand_as(values_BLF)
    summed_BWF = values_BLF.new_zeros(B, count, features)
    summed_BWF = summed_BWF.scatter_add(1, index_BLF, values_BLF * weight_BL[..., None])
    size_BW = weight_BL.new_zeros(B, count).scatter_add(1, number_BL, weight_BL)
    return summed_BWF * size_BW.clamp_min(1).rsqrt()[..., None]


def ngram_rows(tokens_BL: torch.Tensor, *, lengths: Sequence[int], rows: int) -> torch.Tensor:
    """Row of each sequence [len(lengths), B, L]: a polynomial hash modulo 2^64, its high bits."""
    folded_BL = _folded(tokens_BL)
    hash_BL, power, tables = torch.zeros_like(folded_BL), 1, []
    for back in range(max(lengths)):
        shifted_BL = F.pad(folded_BL, (back, 0))[:, : folded_BL.shape[1]]
        hash_BL = hash_BL + shifted_BL * power
        power = _signed(power * _BASE)
        if back + 1 in lengths:
            tables.append(_row_of(hash_BL, rows=rows) + lengths.index(back + 1) * rows)
    return torch.stack(tables)


def word_rows(tokens_BL: torch.Tensor, *, longest: int, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row of each sequence of 1 to `longest` words by where it ends, and whether one ends there, both
    [longest, B, L]. Words are runs of letters, digits and bytes over 127; what stands between them is not
    looked at.

    A word's hash is a difference of prefix sums of byte * base^place, divided by base^start: an odd base has
    an inverse modulo 2^64.
    """
    B, L = tokens_BL.shape
    is_word_BL, starts_BL = _in_word(tokens_BL), _word_starts(tokens_BL)
    ends_BL = is_word_BL & ~F.pad(is_word_BL, (0, 1))[:, 1:]
    terms_BL = _folded(tokens_BL) * _powers(_BASE, count=L, like=tokens_BL)
    before_BL = F.pad(terms_BL.cumsum(1), (1, 0))
    place_BL = torch.arange(L, device=tokens_BL.device).expand(B, L)
    start_BL = place_BL.where(starts_BL, 0).cummax(1).values
    inverse_L = _powers(pow(_BASE, -1, 1 << 64), count=L, like=tokens_BL)
    word_BL = (before_BL[:, 1:] - before_BL.gather(1, start_BL)) * inverse_L[start_BL]
    previous_BL = F.pad(place_BL.where(ends_BL, -1).cummax(1).values, (1, 0), value=-1)[:, :L]
    hash_BL, ended_BL, tables, masks = word_BL, ends_BL, [], []
    for number in range(longest):
        tables.append(_row_of(hash_BL, rows=rows) + number * rows)
        masks.append(ended_BL)
        back_BL = previous_BL.clamp_min(0)
        ended_BL = ends_BL & (previous_BL >= 0) & ended_BL.gather(1, back_BL)
        hash_BL = word_BL + hash_BL.gather(1, back_BL) * _signed(_MIX)
    return torch.stack(tables), torch.stack(masks)


# Multipliers of 64 bits: Knuth's, and 2^64 over the golden ratio; any odd ones would do.
_BASE, _MIX = 6364136223846793005, 0x9E3779B97F4A7C15


def _folded(tokens_BL: torch.Tensor) -> torch.Tensor:
    """Letters without their case, and nothing that is 0."""
    is_capital_BL = (tokens_BL >= ord("A")) & (tokens_BL <= ord("Z"))
    return tokens_BL + 32 * is_capital_BL + 1


def _in_word(tokens_BL: torch.Tensor) -> torch.Tensor:
    is_letter_BL = ((tokens_BL | 32) >= ord("a")) & ((tokens_BL | 32) <= ord("z"))
    is_digit_BL = (tokens_BL >= ord("0")) & (tokens_BL <= ord("9"))
    return is_letter_BL | is_digit_BL | ((tokens_BL > 127) & (tokens_BL < 256))


def _word_starts(tokens_BL: torch.Tensor) -> torch.Tensor:
    is_word_BL = _in_word(tokens_BL)
    return is_word_BL & ~F.pad(is_word_BL, (1, 0))[:, :-1]


def _powers(base: int, *, count: int, like: torch.Tensor) -> torch.Tensor:
    """1, base, base^2, ... modulo 2^64 [count]."""
    factors = torch.full((count,), _signed(base), dtype=torch.int64, device=like.device)
    factors[:1] = 1
    return factors.cumprod(0)


def _row_of(hash_BL: torch.Tensor, *, rows: int) -> torch.Tensor:
    """High bits of the mixed hash: its low ones repeat."""
    return ((hash_BL * _signed(_MIX)) >> 33) & (rows - 1)


def _signed(number: int) -> int:
    """The same 64 bits as a signed integer, which is what torch multiplies."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number


class ImageStem(nn.Module):
    """Images [B, H, W, C] (uint8, or float in 0..1) -> one vector per patch, row by row, each with the
    learned vector of its place, since rotary positions only know an order."""

    def __init__(self, config: ImageConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.body: nn.Module = ConvBody(config) if config.style == "conv" else nn.Identity()
        features = config.channels * config.patch**2
        if isinstance(self.body, ConvBody):
            features = self.body.out_channels
        self.project = nn.Linear(features, width)
        self.places = nn.Parameter(torch.empty(config.num_positions, width))

    def forward(self, image_BHWC: torch.Tensor) -> torch.Tensor:
        x_BCHW = self._floats(image_BHWC).permute(0, 3, 1, 2)
        if self.training and self.config.augment == "flip_crop":
            x_BCHW = flip_and_shift(x_BCHW, reach=max(1, self.config.height // 8))
        if self.config.style == "conv":
            x_BLF = self.body(x_BCHW).permute(0, 2, 3, 1).flatten(1, 2)
        else:
            x_BLF = F.unfold(x_BCHW, self.config.patch, stride=self.config.patch).transpose(1, 2)
        return self.project(x_BLF) + self.places  # type: ignore[no-any-return]

    def _floats(self, image_BHWC: torch.Tensor) -> torch.Tensor:
        """Centred on 0 with a spread near 1, in the weights' dtype."""
        scale = 1 / 255 if image_BHWC.dtype == torch.uint8 else 1.0
        return (image_BHWC.to(self.project.weight.dtype) * scale - 0.5) * 4


def flip_and_shift(x_BCHW: torch.Tensor, *, reach: int) -> torch.Tensor:
    """Mirror each image with probability 1/2 and move it by up to `reach` pixels, edges reflected."""
    B, _, H, W = x_BCHW.shape
    x_BCHW = torch.where(torch.rand(B, 1, 1, 1, device=x_BCHW.device) < 0.5, x_BCHW.flip(3), x_BCHW)
    padded = F.pad(x_BCHW, (reach, reach, reach, reach), mode="reflect")
    down_B, right_B = torch.randint(0, 2 * reach + 1, (2, B)).tolist()
    moved = [padded[b, :, y : y + H, x : x + W] for b, (y, x) in enumerate(zip(down_B, right_B, strict=True))]
    return torch.stack(moved)


class AudioStem(nn.Module):
    """Sound [B, S] with lengths [B] -> one vector per `stack` frames: log-mel, then two convolutions."""

    def __init__(self, config: AudioConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.near = TimeConv(config.num_mels, width, stride=1)
        self.far = TimeConv(width, width, stride=config.stack)

    def forward(self, audio_BS: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """What lies after a sound's length changes nothing of what stands before it."""
        count_B = 1 + length_B // self.config.hop
        audio_BS = audio_BS.masked_fill(~first(length_B, of=audio_BS.shape[1]), 0)
        frames_BTM = normalise(log_mel(audio_BS, config=self.config), count_B=count_B)
        if self.training and self.config.augment == "mask":
            frames_BTM = blank(frames_BTM, count_B=count_B)
        real_BT1 = first(count_B, of=frames_BTM.shape[1])[..., None]
        near_BTD = self.near(frames_BTM.to(self.near.conv.weight.dtype)) * real_BT1
        return self.far(near_BTD)  # type: ignore[no-any-return]

    @staticmethod
    def positions(length_B: torch.Tensor, *, config: AudioConfig) -> torch.Tensor:
        """Positions that hold sound, for sounds of these lengths in samples; 0 for a length of 0."""
        frames_B = 1 + length_B // config.hop
        return torch.where(length_B > 0, (frames_B - 1) // config.stack + 1, 0)


class TimeConv(nn.Module):
    """Convolution over 5 frames and GELU, [B, T, inner] -> [B, ceil(T / stride), outer]."""

    def __init__(self, inner: int, outer: int, *, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, 5, stride=stride, padding=2)

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.conv(x_BTF.transpose(1, 2))).transpose(1, 2)


def log_mel(audio_BS: torch.Tensor, *, config: AudioConfig) -> torch.Tensor:
    """Log energies [B, T, M] in float32, T = 1 + S // hop. int16 is read as -1..1."""
    scale = 1 / 32768 if audio_BS.dtype == torch.int16 else 1.0
    window = round(config.sample_rate * config.window_ms / 1000)
    spectrum_BFT = torch.stft(
        audio_BS.float() * scale,
        n_fft=1 << (window - 1).bit_length(),
        hop_length=config.hop,
        win_length=window,
        window=torch.hann_window(window, device=audio_BS.device),
        pad_mode="constant",
        return_complex=True,
    )
    filters_FM = mel_filters(spectrum_BFT.shape[1], config=config).to(audio_BS.device)
    energy_BTM = spectrum_BFT.abs().square().transpose(1, 2) @ filters_FM
    return energy_BTM.clamp_min(1e-10).log()


def mel_filters(num_bins: int, *, config: AudioConfig) -> torch.Tensor:
    """Triangles [F, M] whose corners are even on the scale mel = 2595 log10(1 + f / 700) (O'Shaughnessy)."""
    top_mel = 2595 * math.log10(1 + config.sample_rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top_mel, config.num_mels + 2) / 2595) - 1)
    bins_F1 = torch.linspace(0, config.sample_rate / 2, num_bins)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins_F1 - left) / (centre - left), (right - bins_F1) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0)


def normalise(frames_BTM: torch.Tensor, *, count_B: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 of each filter over the real frames of its sound; frames after them become 0."""
    real_BT1 = first(count_B, of=frames_BTM.shape[1])[..., None]
    count_B11 = count_B[:, None, None]
    mean_B1M = (frames_BTM * real_BT1).sum(1, keepdim=True) / count_B11
    centred_BTM = (frames_BTM - mean_B1M) * real_BT1
    variance_B1M = centred_BTM.square().sum(1, keepdim=True) / count_B11
    return centred_BTM / (variance_B1M + 1e-3).sqrt()


def blank(frames_BTM: torch.Tensor, *, count_B: torch.Tensor) -> torch.Tensor:
    """Set to 0 (the mean) two stretches of time of up to a fifth of the sound, and two of up to a fifth of
    the filters."""
    B, T, M = frames_BTM.shape
    time_BT = torch.arange(T, device=frames_BTM.device).expand(B, T)
    pitch_BM = torch.arange(M, device=frames_BTM.device).expand(B, M)
    for _ in range(2):
        hidden_BT = _stretch(time_BT, size_B=count_B)
        hidden_BM = _stretch(pitch_BM, size_B=torch.full_like(count_B, M))
        frames_BTM = frames_BTM.masked_fill(hidden_BT[:, :, None] | hidden_BM[:, None, :], 0.0)
    return frames_BTM


def _stretch(places_BN: torch.Tensor, *, size_B: torch.Tensor) -> torch.Tensor:
    """True on one random run of up to a fifth of `size_B` places in each row."""
    draw_2B = torch.rand(2, len(size_B), device=size_B.device)
    length_B = (draw_2B[0] * size_B / 5).long()
    start_B = (draw_2B[1] * (size_B - length_B)).long()
    return (places_BN >= start_B[:, None]) & (places_BN < (start_B + length_B)[:, None])


def first(length_B: torch.Tensor, *, of: int) -> torch.Tensor:
    """True at the first `length` of `of` places, [B, of]."""
    return torch.arange(of, device=length_B.device) < length_B[:, None]
