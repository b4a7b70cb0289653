"""A trained model as a folder that others can open, and such folders as models of ours.

    model.safetensors (or shards and an index)   config.json   tokenizer.json   tokenizer_config.json
    rsc.json: our own settings, so that `rsc eval FOLDER` needs nothing else

Next-token models take the Llama or Mixtral layout where it can express them; all others keep our tensor
names, and `rsc.json` says why. The folder appears whole, by one rename.

Not covered: exported weights are plain files. They hold no training record, but a model can remember
some of what it saw; who may read them is the reader's decision.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open

from rsc.errors import ConfigError
from rsc.export.layout import from_open, to_open, why_not_open
from rsc.export.settings import OWN_SETTINGS, ExportSettings, open_config, read_settings
from rsc.models.config import TOKENIZER_FILE, ModelConfig
from rsc.models.tokenizer import Tokenizer, open_tokenizer
from rsc.tokenizer_json import JsonTokenizer

SHARD_BYTES = 5 * 10**9  # the size that model hubs cut at


@dataclass(frozen=True)
class ExportResult:
    path: Path
    layout: str
    """`llama`, `mixtral` or `rsc`."""
    reason: str
    """Why the layout is `rsc`; empty otherwise."""
    num_parameters: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class OpenedExport:
    config: ModelConfig
    state: dict[str, torch.Tensor]
    context: int
    separator: int | None
    """The id that ends a document, and stands before one."""
    settings: dict[str, Any]
    """What `rsc.json` holds; empty for a folder that somebody else wrote."""


def write_export(
    folder: Path,
    *,
    config: ModelConfig,
    state: Mapping[str, torch.Tensor],
    context: int,
    separator: int | None = None,
    dtype: torch.dtype = torch.float32,
    settings: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str] | None = None,
) -> ExportResult:
    """Write the folder; `extra_files` (the model card) go in with it.

    `separator` is the id that stood between documents in training; without one, the tokenizer's own is
    named. Raises ConfigError if the folder exists, or for weights that `dtype` cannot hold.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already", hint="remove it, or name another folder with --to")
    reason = why_not_open(config, state=state) or ""
    layout = "rsc" if reason else ("mixtral" if config.trunk.moe else "llama")
    staged = folder.with_name(f".{folder.name}.{os.getpid()}")
    staged.mkdir(parents=True)
    try:
        tensors = state.items() if reason else to_open(state, config=config)
        num_parameters = _write_tensors(staged, tensors, dtype=dtype)
        texts = _settings_files(
            config,
            layout=layout,
            reason=reason,
            context=context,
            separator=separator,
            settings=settings or {},
        )
        for name, text in (texts | dict(extra_files or {})).items():
            (staged / name).write_text(text)
        staged.rename(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ExportResult(folder, layout=layout, reason=reason, num_parameters=num_parameters, files=files)


def read_export(folder: Path) -> OpenedExport:
    """Open a folder of ours, or an open Llama or Mixtral one. Raises ConfigError for anything else."""
    tensors = _LazyTensors(folder)
    said = read_settings(folder)
    if said.own.get("layout") == "rsc":
        state = dict(tensors.items())
    else:
        state = _from_open(tensors, said)
    return OpenedExport(said.config, state, said.context, said.separator, said.own)


def _from_open(tensors: Mapping[str, torch.Tensor], said: ExportSettings) -> dict[str, torch.Tensor]:
    try:
        return from_open(tensors, config=said.config, tied=said.is_tied)
    except RuntimeError as error:  # a view that does not fit
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the weights do not have the shapes that config.json says: {reason}",
            hint="one of the two files is another model's",
        ) from None


def _settings_files(
    config: ModelConfig,
    *,
    layout: str,
    reason: str,
    context: int,
    separator: int | None,
    settings: Mapping[str, Any],
) -> dict[str, str]:
    own = {"format": 1, "layout": layout, "layout_reason": reason, "context": context, **settings}
    if config.text is None:
        own["model"] = config.model_dump(mode="json", exclude_none=True)
        return {OWN_SETTINGS: json.dumps(own, indent=2)}
    tokenizer = open_tokenizer(config.text)
    separator = tokenizer.separator if separator is None else separator
    own |= {"separator": separator, "model": _with_own_tokenizer(config, tokenizer)}
    mark = tokenizer.token(separator) if separator is not None else None
    fast = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
    fast |= {"bos_token": mark, "eos_token": mark} if mark is not None else {}
    files = {
        OWN_SETTINGS: json.dumps(own, indent=2),
        TOKENIZER_FILE: tokenizer.to_json(),
        "tokenizer_config.json": json.dumps(fast, indent=2),
    }
    if layout != "rsc":
        values = open_config(config, context=context, separator=separator)
        files["config.json"] = json.dumps(values, indent=2)
    return files


def _with_own_tokenizer(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's settings with the tokenizer that lies beside them, wherever the folder goes."""
    values = config.model_dump(mode="json", exclude_none=True)
    if isinstance(tokenizer, JsonTokenizer):
        values["text"] |= {"tokenizer": TOKENIZER_FILE, "tokenizer_sha256": tokenizer.sha256}
    return values


def _write_tensors(folder: Path, tensors: Iterable[tuple[str, torch.Tensor]], *, dtype: torch.dtype) -> int:
    """Write one file, or shards with an index; at most one shard is in memory. Returns the parameters."""
    shards: list[list[str]] = []
    total = size = 0
    for number, shard in enumerate(_shards(tensors, dtype=dtype), start=1):
        safetensors.torch.save_file(shard, folder / f"part-{number}", metadata={"format": "pt"})
        shards.append(list(shard))
        total += sum(tensor.numel() for tensor in shard.values())
        size += sum(tensor.nbytes for tensor in shard.values())
    if len(shards) == 1:
        (folder / "part-1").rename(folder / "model.safetensors")
        return total
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{number}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return total


def _shards(
    tensors: Iterable[tuple[str, torch.Tensor]], *, dtype: torch.dtype
) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        ready = tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous().clone()
        if ready.is_floating_point() and not bool(ready.isfinite().all()):
            _refuse_infinite(name, tensor, dtype=dtype)
        if shard and size + ready.nbytes > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = ready
        size += ready.nbytes
    yield shard


def _refuse_infinite(name: str, tensor: torch.Tensor, *, dtype: torch.dtype) -> None:
    if not bool(tensor.isfinite().all()):
        raise ConfigError(
            f"tensor {name} holds values that are not finite", hint="export another run: this one diverged"
        )
    largest = float(tensor.abs().max())
    raise ConfigError(
        f"tensor {name} holds {largest:.3g}, which {str(dtype).removeprefix('torch.')} cannot hold (at most "
        f"{torch.finfo(dtype).max:.3g})",
        hint="export it with --dtype bfloat16 or float32",
    )


class _LazyTensors(Mapping[str, torch.Tensor]):
    """Tensors of a folder's safetensors files, read when asked for."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ConfigError(f"{folder} has no .safetensors file", hint="give a folder made by an export")
        self._file_of: dict[str, Path] = {}
        for file in files:
            with _open(file) as held:
                self._file_of |= dict.fromkeys(held.keys(), file)

    def __getitem__(self, name: str) -> torch.Tensor:
        with _open(self._file_of[name]) as held:
            tensor: torch.Tensor = held.get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except Exception as error:  # the library's own error class is not importable everywhere
        raise ConfigError(f"{file.name} is not a safetensors file: {error}") from None
