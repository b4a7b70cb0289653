"""What the words mean under which train/batches/collate.py counts samples with problems. No torch here."""

from __future__ import annotations

import re

MEANINGS = {
    "text_cut": "longer than model.text.max_length; the rest was not read",
    "text_empty": "no text",
    "picture": "no picture there, or none that can be decoded",
    "sound": "no sound there, or none that can be decoded",
    "sound_cut": "longer than model.audio.max_seconds; the rest was not heard",
    "not_finite": "NaN or infinity in a number",
    "label": "not one of model.head.labels, which must stand there as they stand in the data",
    "unaligned": "more symbols than positions",
}


def meanings(counts: str) -> list[str]:
    """A line for each word that stands in `counts`, for example `6 text_cut, 1 label`."""
    return [f"  {word}: {MEANINGS[word]}" for word in re.findall("[a-z_]+", counts) if word in MEANINGS]
