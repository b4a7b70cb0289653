"""What a folder of weights says about its model: our `rsc.json`, or an open `config.json`. No torch here, so
that a folder can be judged before a process that trains is started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rsc.errors import ConfigError
from rsc.models.config import (
    TOKENIZER_FILE,
    HeadConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    TextConfig,
    TrunkConfig,
    with_tokenizer_in,
)

OWN_SETTINGS = "rsc.json"


@dataclass(frozen=True)
class ExportSettings:
    config: ModelConfig
    context: int
    """Positions the model was trained on."""
    separator: int | None
    """The id that ends a document, and stands before one; None where the folder names none."""
    own: dict[str, Any]
    """What `rsc.json` holds; empty for a folder that somebody else wrote."""
    is_tied: bool = False
    """The embedding is the head's matrix too."""


def is_export(path: Path) -> bool:
    """Whether it is a folder of weights, ours or somebody else's."""
    return path.is_dir() and any(path.glob("*.safetensors"))


def read_settings(folder: Path) -> ExportSettings:
    """Raises ConfigError for a folder that says nothing, or describes a model that this trunk is not."""
    try:
        if (folder / OWN_SETTINGS).exists():
            own = _read_json(folder / OWN_SETTINGS)
            config = with_tokenizer_in(_own_model(own["model"]), folder)
            return ExportSettings(config, int(own["context"]), own.get("separator"), own)
        values = _read_json(folder / "config.json")
        config = with_tokenizer_in(read_open_config(values), folder)
        context = int(values["max_position_embeddings"])
        is_tied = bool(values.get("tie_word_embeddings", False))
        return ExportSettings(config, context, _end_of(values), {}, is_tied)
    except KeyError as error:
        raise ConfigError(
            f"the settings of {folder} lack {error}", hint="give a folder made by an export"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{folder} holds settings of another model: {key}: {first['msg']}") from None


def open_config(config: ModelConfig, *, context: int, separator: int | None) -> dict[str, Any]:
    """`config.json` of the open layout, in the form that releases 4 and 5 of transformers read."""
    trunk, moe = config.trunk, config.trunk.moe
    assert config.text is not None
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": trunk.rope_base}
    if trunk.rope_scaling is not None:
        scaling = trunk.rope_scaling
        rope |= {"rope_type": "llama3", "original_max_position_embeddings": scaling.original_context}
        rope |= scaling.model_dump(exclude={"original_context"})
    values: dict[str, Any] = {
        "architectures": ["MixtralForCausalLM" if moe else "LlamaForCausalLM"],
        "model_type": "mixtral" if moe else "llama",
        "vocab_size": config.text.vocabulary,
        "hidden_size": trunk.width,
        "num_hidden_layers": trunk.num_layers,
        "num_attention_heads": trunk.num_heads,
        "num_key_value_heads": trunk.kv_heads,
        "head_dim": trunk.head_features,
        "intermediate_size": moe.expert_width if moe else trunk.mlp_width,
        "hidden_act": "silu",
        "rms_norm_eps": trunk.norm_eps,
        "rope_theta": trunk.rope_base,
        "rope_parameters": rope,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "bos_token_id": separator,
        "eos_token_id": separator,
    }
    if trunk.rope_scaling is not None:
        values["rope_scaling"] = rope
    if moe is not None:
        values |= {
            "num_local_experts": moe.num_experts,
            "num_experts_per_tok": moe.top_k,
            "sliding_window": None,
        }
    return values


def read_open_config(values: Mapping[str, Any]) -> ModelConfig:
    """Our config of an open `config.json`. Raises ConfigError for what this trunk does not have."""
    kind = values.get("model_type")
    if kind not in ("llama", "mixtral"):
        raise ConfigError(
            f"model_type {kind!r} is not one that can be imported", hint="llama and mixtral can"
        )
    for key, wanted in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if values.get(key, wanted) != wanted:
            raise ConfigError(f"{key} = {values[key]!r} is not supported: this trunk has {wanted!r}")
    if values.get("quantization_config"):
        raise ConfigError(
            "the weights are quantised (quantization_config), which is not supported",
            hint="give the folder of the same model in bfloat16 or float32",
        )
    if values.get("sliding_window"):
        raise ConfigError(f"sliding_window = {values['sliding_window']} is not supported: attention is whole")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    moe = None
    if kind == "mixtral":
        moe = MoeConfig(
            num_experts=values["num_local_experts"],
            top_k=values["num_experts_per_tok"],
            expert_width=values["intermediate_size"],
        )
    trunk = TrunkConfig(
        width=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        num_kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        head_width=values.get("head_dim"),
        mlp_width=values["intermediate_size"],
        rope_base=rope.get("rope_theta") or values.get("rope_theta", 10_000.0),
        rope_scaling=_scaling(rope),
        norm_eps=values["rms_norm_eps"],
        moe=moe,
    )
    # Its tokenizer is always a file, and without that file nobody can say what its ids mean.
    text = TextConfig(vocabulary=values["vocab_size"], tokenizer=TOKENIZER_FILE)
    return ModelConfig(trunk=trunk, text=text, head=HeadConfig())


def _own_model(values: dict[str, Any]) -> ModelConfig:
    """Exports used to name the file that the run had read; the copy beside them is what they mean."""
    text = values.get("text")
    if text is not None and text.get("tokenizer", "bytes") != "bytes":
        values = {**values, "text": {**text, "tokenizer": TOKENIZER_FILE}}
    return ModelConfig.model_validate(values)


def _end_of(values: Mapping[str, Any]) -> int | None:
    """Llama 3 and others name several ends; the first is the one between documents."""
    ends = values.get("eos_token_id")
    if isinstance(ends, list):
        ends = ends[0] if ends else None
    return None if ends is None else int(ends)


def _scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ConfigError(f"rope_type {kind!r} is not supported", hint="default and llama3 are")
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_context=rope["original_max_position_embeddings"],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}", hint="give a folder made by an export") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold settings")
    return values
