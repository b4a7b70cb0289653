"""Names and shapes of open Llama and Mixtral weights <-> ours, as pure functions on tensors.

Differences: our `qkv` holds query, key and value rows by key/value group where theirs has three
matrices; our experts are stacked where theirs are one tensor each; our embedding has padding rows.
Shapes: H query heads, G key/value heads, R = H / G, E head features, D width, X experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from rsc.errors import ConfigError
from rsc.models.config import ModelConfig, TextConfig, TrunkConfig

Tensors = Mapping[str, torch.Tensor]

# Ours under `trunk.blocks.N.` -> theirs under `model.layers.N.`; what is not a plain rename is below.
_BLOCK_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
    "mlp.router.weight": "block_sparse_moe.gate.weight",
}
_EXPERT_NAMES = {"mlp.experts.gate": "w1", "mlp.experts.down": "w2", "mlp.experts.up": "w3"}
_OUTER_NAMES = {
    "stems.text.embedding.weight": "model.embed_tokens.weight",
    "trunk.norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}


_NUMBERS = {torch.float32, torch.float64, torch.float16, torch.bfloat16}


def why_not_open(config: ModelConfig, *, state: Tensors | None = None) -> str | None:
    """Why neither layout can express this model (and this state), or None when one can."""
    trunk, moe = config.trunk, config.trunk.moe
    if not config.task.is_language:
        return f"a {config.head.kind} head"
    if config.text is not None and (config.text.ngrams or config.text.words):
        return "vectors of token sequences in the text stem"
    if not trunk.causal:
        return "attention in both directions"
    if moe is not None and (
        moe.num_shared or moe.first_layer or moe.scoring != "softmax" or not moe.normalise
    ):
        return "experts that differ from Mixtral's: shared ones, plain first layers or other scoring"
    if state is not None and any(name.endswith("router.bias") and bool(t.any()) for name, t in state.items()):
        return "a choice bias of the experts (trained with balance_rate > 0)"
    return None


def to_open(state: Tensors, *, config: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors under their open names, one by one, so that a lazy `state` is never whole in memory."""
    assert config.text is not None
    for name in state:
        if name.endswith("router.bias"):
            continue
        tensor = state[name]
        if name in _OUTER_NAMES:
            rows = slice(None) if name == "trunk.norm.weight" else slice(config.text.vocabulary)
            yield _OUTER_NAMES[name], tensor[rows]
            continue
        _, _, layer, inner = name.split(".", 3)
        prefix = f"model.layers.{layer}"
        if inner == "attention.qkv.weight":
            yield from _split_qkv(tensor, prefix=f"{prefix}.self_attn", config=config.trunk)
        elif inner in _EXPERT_NAMES:
            for number, expert in enumerate(tensor):
                yield f"{prefix}.block_sparse_moe.experts.{number}.{_EXPERT_NAMES[inner]}.weight", expert
        else:
            yield f"{prefix}.{_BLOCK_NAMES[inner]}", tensor


def from_open(tensors: Tensors, *, config: ModelConfig, tied: bool = False) -> dict[str, torch.Tensor]:
    """Our state dict. `tied`: input and output share a matrix, whatever else the files hold.

    Raises ConfigError that names a tensor which is missing, has another shape than the settings say, or has
    no place in the model: weights without their scales or biases are other weights.
    """
    assert config.text is not None
    held = _Held(tensors)
    state = {"trunk.norm.weight": held["model.norm.weight"]}
    embedding = held["model.embed_tokens.weight"]
    is_tied = tied or "lm_head.weight" not in tensors
    head = embedding if is_tied else held["lm_head.weight"]
    state["stems.text.embedding.weight"] = _pad_rows(embedding, text=config.text)
    state["head.weight"] = _pad_rows(head, text=config.text)
    for layer in range(config.trunk.num_layers):
        state |= _block_from_open(held, layer=layer, config=config.trunk)
    held.require_nothing_left(ignored={"lm_head.weight"} if is_tied else set())
    return state


class _Held:
    """Tensors whose absence is named, and those that nobody asked for."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._left = set(tensors)

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            tensor = self._tensors[name]
        except KeyError:
            raise ConfigError(f"the weights have no tensor {name}", hint="download all shards") from None
        self._left.discard(name)
        if tensor.dtype not in _NUMBERS:
            raise ConfigError(
                f"tensor {name} holds {str(tensor.dtype).removeprefix('torch.')}: quantised weights are not "
                "supported",
                hint="give the folder of the same model in bfloat16 or float32",
            )
        return tensor

    def require_nothing_left(self, *, ignored: set[str]) -> None:
        """Tables of rotary positions are computed from the settings; everything else means something."""
        left = sorted(name for name in self._left - ignored if not name.endswith("rotary_emb.inv_freq"))
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise ConfigError(
                f"the weights hold {left[0]}{more}, which this model has no place for",
                hint="biases, scales of quantised weights and adapters are not supported",
            )


def _block_from_open(held: _Held, *, layer: int, config: TrunkConfig) -> dict[str, torch.Tensor]:
    ours, theirs = f"trunk.blocks.{layer}", f"model.layers.{layer}"
    left_out = ("mlp.gate", "mlp.up", "mlp.down") if config.moe else ("mlp.router",)
    state = {
        f"{ours}.{inner}": held[f"{theirs}.{name}"]
        for inner, name in _BLOCK_NAMES.items()
        if not inner.startswith(left_out)
    }
    state[f"{ours}.attention.qkv.weight"] = _join_qkv(held, prefix=f"{theirs}.self_attn", config=config)
    if config.moe is not None:
        experts = f"{theirs}.block_sparse_moe.experts"
        for inner, name in _EXPERT_NAMES.items():
            each = [held[f"{experts}.{x}.{name}.weight"] for x in range(config.moe.num_experts)]
            state[f"{ours}.{inner}"] = torch.stack(each)
        state[f"{ours}.mlp.router.bias"] = torch.zeros(config.moe.num_experts)
    return state


def _split_qkv(qkv: torch.Tensor, *, prefix: str, config: TrunkConfig) -> Iterator[tuple[str, torch.Tensor]]:
    R, E = config.num_heads // config.kv_heads, config.head_features
    grouped_GSED = qkv.view(config.kv_heads, R + 2, E, -1)
    yield f"{prefix}.q_proj.weight", grouped_GSED[:, :R].flatten(0, 2)
    yield f"{prefix}.k_proj.weight", grouped_GSED[:, R].flatten(0, 1)
    yield f"{prefix}.v_proj.weight", grouped_GSED[:, R + 1].flatten(0, 1)


def _join_qkv(held: _Held, *, prefix: str, config: TrunkConfig) -> torch.Tensor:
    G, E = config.kv_heads, config.head_features
    q, k, v = (held[f"{prefix}.{part}_proj.weight"] for part in "qkv")
    parts = (q.view(G, -1, E, config.width), k.view(G, 1, E, config.width), v.view(G, 1, E, config.width))
    return torch.cat(parts, dim=1).flatten(0, 2)


def _pad_rows(table: torch.Tensor, *, text: TextConfig) -> torch.Tensor:
    if len(table) != text.vocabulary:
        raise ConfigError(
            f"the weights have {len(table)} rows of tokens, config.json says vocab_size {text.vocabulary}",
            hint="one of the two files is another model's",
        )
    padded = table.new_zeros(text.rows, table.shape[1])
    padded[: len(table)] = table
    return padded
