"""Stems: one input each, turned into vectors of the trunk's width.

Shapes: B batch, L positions, D width; images H x W x C; sound S samples, T frames, M mel filters.
A stem's `forward` gives [B, L, D]; which positions are real is told by `Batch` (models/build.py).
In training, what is augmented or dropped is drawn by `draw_B` (models/sample_random.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.config import NUM_BYTES, AudioConfig, ImageConfig, TextConfig
from rsc.models.convolution import ConvBody
from rsc.models.ngrams import Ngrams, sum_words, word_numbers
from rsc.models.sample_random import Purpose, uniforms


class TextStem(nn.Module):
    """Token ids [B, L] -> [B, L, D] by a table, or [B, W, D] where a position is a word. Rows from
    `vocabulary` on are padding; the first of them stands for a hidden token where a head needs one."""

    def __init__(self, config: TextConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.rows, width)
        self.ngrams = Ngrams(config, width=width) if config.ngrams or config.words else None

    def forward(
        self,
        tokens_BL: torch.Tensor,
        draw_B: torch.Tensor | None = None,
        places_BL: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`places_BL`: where the tokens stand, if these are a part of the text."""
        if self.config.positions == "words":
            return self._words(tokens_BL, draw_B)
        if self.training and self.config.drop:
            places = tokens_BL.shape[1] if places_BL is None else places_BL
            dropped_BL = uniforms(_given(draw_B), places, purpose=Purpose.DROP) < self.config.drop
            tokens_BL = tokens_BL.masked_fill(dropped_BL, self.config.vocabulary)
        hidden_BLD: torch.Tensor = self.embedding(tokens_BL)
        if self.ngrams is None:
            return hidden_BLD
        return hidden_BLD + self.ngrams.blend(self.ngrams(tokens_BL))  # type: ignore[no-any-return]

    def _words(self, tokens_BL: torch.Tensor, draw_B: torch.Tensor | None) -> torch.Tensor:
        place = {"number_BL": word_numbers(tokens_BL), "is_byte_BL": tokens_BL < NUM_BYTES}
        hidden_BWD = sum_words(self.embedding(tokens_BL), **place)
        if self.ngrams is not None:
            hidden_BWD = hidden_BWD + self.ngrams.blend(sum_words(self.ngrams(tokens_BL), **place))
        if self.training and self.config.drop:
            drawn_BW = uniforms(_given(draw_B), hidden_BWD.shape[1], purpose=Purpose.DROP)
            hidden_BWD = hidden_BWD * (drawn_BW >= self.config.drop)[..., None]
        return hidden_BWD

    @staticmethod
    def positions(tokens_BL: torch.Tensor, *, config: TextConfig) -> torch.Tensor | None:
        """Positions that hold text, for padded rows of bytes [B]; None where each token is one."""
        return word_numbers(tokens_BL)[:, -1] + 1 if config.positions == "words" else None


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

    def forward(self, image_BHWC: torch.Tensor, draw_B: torch.Tensor | None = None) -> torch.Tensor:
        x_BCHW = self._floats(image_BHWC).permute(0, 3, 1, 2)
        if self.training and self.config.augment == "flip_crop":
            x_BCHW = flip_and_shift(x_BCHW, reach=max(1, self.config.height // 8), draw_B=_given(draw_B))
        if self.config.style == "conv":
            x_BLF = self.body(x_BCHW).permute(0, 2, 3, 1).flatten(1, 2)
        else:
            x_BLF = F.unfold(x_BCHW, self.config.patch, stride=self.config.patch).transpose(1, 2)
        return self.project(x_BLF) + self.places  # type: ignore[no-any-return]

    def _floats(self, image_BHWC: torch.Tensor) -> torch.Tensor:
        """Centred on 0 with a spread near 1, in the weights' dtype."""
        scale = 1 / 255 if image_BHWC.dtype == torch.uint8 else 1.0
        return (image_BHWC.to(self.project.weight.dtype) * scale - 0.5) * 4


def flip_and_shift(x_BCHW: torch.Tensor, *, reach: int, draw_B: torch.Tensor) -> torch.Tensor:
    """Mirror each image with probability 1/2 and move it by up to `reach` pixels, edges reflected."""
    H, W = x_BCHW.shape[2:]
    drawn_3B = uniforms(draw_B, 3, purpose=Purpose.MOVE).T
    x_BCHW = torch.where(drawn_3B[0].view(-1, 1, 1, 1) < 0.5, x_BCHW.flip(3), x_BCHW)
    padded = F.pad(x_BCHW, (reach, reach, reach, reach), mode="reflect")
    down_B, right_B = (drawn_3B[1:] * (2 * reach + 1)).long().tolist()
    moved = [padded[b, :, y : y + H, x : x + W] for b, (y, x) in enumerate(zip(down_B, right_B, strict=True))]
    return torch.stack(moved)


class AudioStem(nn.Module):
    """Sound [B, S] with lengths [B] -> one vector per `stack` frames: log-mel, then two convolutions."""

    def __init__(self, config: AudioConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.near = TimeConv(config.num_mels, width, stride=1)
        self.far = TimeConv(width, width, stride=config.stack)

    def forward(
        self, audio_BS: torch.Tensor, length_B: torch.Tensor, draw_B: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What lies after a sound's length changes nothing of what stands before it."""
        count_B = 1 + length_B // self.config.hop
        audio_BS = audio_BS.masked_fill(~first(length_B, of=audio_BS.shape[1]), 0)
        frames_BTM = normalise(log_mel(audio_BS, config=self.config), count_B=count_B)
        if self.training and self.config.augment == "mask":
            frames_BTM = blank(frames_BTM, count_B=count_B, draw_B=_given(draw_B))
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


def blank(frames_BTM: torch.Tensor, *, count_B: torch.Tensor, draw_B: torch.Tensor) -> torch.Tensor:
    """Set to 0 (the mean) two stretches of time of up to a fifth of the sound, and two of up to a fifth of
    the filters."""
    B, T, M = frames_BTM.shape
    time_BT = torch.arange(T, device=frames_BTM.device).expand(B, T)
    pitch_BM = torch.arange(M, device=frames_BTM.device).expand(B, M)
    drawn_8B = uniforms(draw_B, 8, purpose=Purpose.BLANK).T
    for drawn_4B in (drawn_8B[:4], drawn_8B[4:]):
        hidden_BT = _stretch(time_BT, size_B=count_B, drawn_2B=drawn_4B[:2])
        hidden_BM = _stretch(pitch_BM, size_B=torch.full_like(count_B, M), drawn_2B=drawn_4B[2:])
        frames_BTM = frames_BTM.masked_fill(hidden_BT[:, :, None] | hidden_BM[:, None, :], 0.0)
    return frames_BTM


def _stretch(places_BN: torch.Tensor, *, size_B: torch.Tensor, drawn_2B: torch.Tensor) -> torch.Tensor:
    """True on one random run of up to a fifth of `size_B` places in each row."""
    length_B = (drawn_2B[0] * size_B / 5).long()
    start_B = (drawn_2B[1] * (size_B - length_B)).long()
    return (places_BN >= start_B[:, None]) & (places_BN < (start_B + length_B)[:, None])


def _given(draw_B: torch.Tensor | None) -> torch.Tensor:
    assert draw_B is not None, "in training this model draws by sample: its batch needs draw_B"
    return draw_B


def first(length_B: torch.Tensor, *, of: int) -> torch.Tensor:
    """True at the first `length` of `of` places, [B, of]."""
    return torch.arange(of, device=length_B.device) < length_B[:, None]
