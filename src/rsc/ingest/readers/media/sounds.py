"""One sound: is it whole, what is unusual about it, and its samples where a set is imported decoded."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from rsc.errors import DataError
from rsc.review.media.clean import clean_media
from rsc.review.media.mpeg import has_count
from rsc.review.media.recognise import format_of

if TYPE_CHECKING:
    import soundfile

MAX_SAMPLES = 1 << 28  # over all channels: 512 MiB as int16, what a record may hold
_BLOCK = 1 << 18  # samples of a channel decoded at a time: a header may claim any number
_DECODED = frozenset({"wav", "aiff", "flac", "ogg", "mp3"})
_EXACT = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "ALAW", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"})
_CUT = frozenset({"PCM_24", "PCM_32"})
"""Libsndfile reads these two sets as int16: the first as it is, the second by its high 16 bits. All others
are floats, which it neither scales nor clips to int16."""


def sound(data: bytes, *, sample_rate: int | None, notes: Counter[str]) -> bytes | np.ndarray:
    """The file as given; when a rate is given int16 [S], channels averaged. `notes` counts what is unusual.

    Raises DataError for what is no sound, not whole, of no length, or at another rate: resampling is the
    owner's choice.
    """
    with _open(data) as file:
        if sample_rate is not None and file.samplerate != sample_rate:
            raise DataError(f"sample rate {file.samplerate}, not {sample_rate}")
        clean_media(data)  # parses the file to its end
        if not file.frames:
            raise DataError("a sound of no length")
        if sample_rate is not None or file.format == "FLAC":  # FLAC's end shows in its samples alone
            found = _samples(file, notes=notes if sample_rate is not None else Counter())
        if file.channels > 1:
            notes["sounds of several channels" + ("" if sample_rate is None else ", averaged to one")] += 1
    if format_of(data) == "mp3" and not has_count(data):
        notes["MP3 sounds that do not count their frames: a missing end cannot be noticed"] += 1
    return data if sample_rate is None else found


def _open(data: bytes) -> soundfile.SoundFile:
    """Raises DataError when it is no sound of a format that is decoded here."""
    import soundfile

    name = format_of(data)
    if name is not None and name not in _DECODED:
        raise DataError(f"a {name} file, which is not decoded here")
    if name is None:
        raise DataError("not a sound file that we can decode")
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, RuntimeError):
        raise DataError("not a sound file that we can decode") from None
    return file


def _samples(file: soundfile.SoundFile, *, notes: Counter[str]) -> np.ndarray:
    """int16 [S]. As many as the header counts, or DataError."""
    import soundfile

    is_float = file.subtype not in _EXACT | _CUT
    try:
        blocks = list(_blocks(file, dtype="float32" if is_float else "int16"))
    except (soundfile.LibsndfileError, RuntimeError):
        raise DataError("not a sound file that we can decode to its end") from None
    found = sum(map(len, blocks))
    if found != file.frames:
        raise DataError(f"its header counts {file.frames} samples, {found} are there")
    samples = np.concatenate(blocks)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if file.subtype in _CUT:
        notes["sounds of more than 16 bits, stored as 16"] += 1
    if not is_float:
        return mono.astype(np.int16)
    if not np.isfinite(mono).all():
        raise DataError("samples that are NaN or infinity")
    scaled = np.rint(mono * 32768)
    if len(scaled) and (scaled.max() > 32768 or scaled.min() < -32768):
        notes["sounds louder than full scale, clipped"] += 1
    clipped: np.ndarray = scaled.clip(-32768, 32767).astype(np.int16)
    return clipped


def _blocks(file: soundfile.SoundFile, *, dtype: str) -> Iterator[np.ndarray]:
    """Arrays [S, channels] to the end. Raises DataError for more than MAX_SAMPLES."""
    left = MAX_SAMPLES // file.channels
    while len(block := file.read(_BLOCK, dtype=dtype, always_2d=True)):
        left -= len(block)
        if left < 0:
            raise DataError(f"more than {MAX_SAMPLES} samples: too long for a record")
        yield block
