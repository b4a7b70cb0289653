"""Which data a run reads, and how. The recipe's section [data]."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Data set in the workspace."""
    version: int | None = Field(default=None, ge=1)
    """Version of it; the newest approved one when not given. The resolved recipe always has a number."""
    split: str = "train"
    """Split to train on."""
    validation_split: str | None = "validation"
    """Split for evaluation during the run; none when null or when the version has no such split."""
    fields: tuple[str, ...] | None = None
    """Fields of a sample to deliver; all when null."""
    text_field: str = "text"
    """Field that is packed into sequences: kind string, bytes or tokens. Only read by language recipes."""
    sequence_length: int = Field(default=1024, ge=2)
    """Tokens in a packed sequence."""
    separator: int = Field(default=256, ge=0)
    """Token put before every document when packing. 256 for bytes; a tokenizer's own for token fields."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of the order; with the data set version it fixes what every step sees."""
    window_bytes: int = Field(default=32 << 20, ge=1 << 16)
    """Plaintext that is shuffled together, over all ranks; memory holds up to two of them. Bigger mixes
    better: with 32 MiB a batch of 256 draws from about 110 frames; 8 MiB cost less CPU, and it is 32."""
    lanes: int | None = Field(default=None, ge=1)
    """Parallel streams of the order; by default up to 64. Data-parallel ranks should divide it: then no frame
    is read twice. Part of the order: a run cannot change it half way."""
    threads: int = Field(default=1, ge=0)
    """Threads of a rank that read and decrypt the next window; 0 does it when the batch is asked for. Each
    has one read in flight: with object storage take as many as it needs to fill the line."""
