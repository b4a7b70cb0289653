from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers
import torch

from rsc.errors import ConfigError
from rsc.export import weights
from rsc.export.weights import read_export, write_export
from rsc.models.build import Model, build_model
from rsc.models.config import (
    BagConfig,
    HeadConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    TextConfig,
    TrunkConfig,
)
from rsc.models.heads import Want
from rsc.train.batches.data_counts import add_counts, fill_counts, fresh_counts

transformers = pytest.importorskip(
    "transformers", reason="the oracle for open layouts: pip install transformers"
)

TOLERANCE = 1e-4  # the rule for open layouts: logits equal to those of transformers within this


def config(*, moe: MoeConfig | None = None, scaling: RopeScaling | None = None) -> ModelConfig:
    trunk = TrunkConfig(
        width=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_width=48, moe=moe, rope_scaling=scaling
    )
    return ModelConfig(trunk=trunk, text=TextConfig())


MIXTRAL = MoeConfig(num_experts=4, top_k=2, expert_width=24)
LLAMA3 = RopeScaling(factor=8.0, original_context=16)


def tokens() -> torch.Tensor:
    return torch.randint(0, 257, (2, 40), generator=torch.Generator().manual_seed(0))


def our_logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model({"tokens_BL": tokens()}, Want.LOGITS)["logits"][..., :257]


def widen(model: Model) -> Model:
    """Larger weights than a fresh model has, so that logits are far from zero and errors show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


@pytest.mark.parametrize(
    "case", [config(), config(moe=MIXTRAL), config(scaling=LLAMA3)], ids=["llama", "mixtral", "llama3"]
)
def test_exported_model_gives_equal_logits_in_transformers(case: ModelConfig, tmp_path: Path) -> None:
    model = widen(build_model(case, seed=3))
    result = write_export(tmp_path / "out", config=case, state=model.state_dict(), context=64)
    assert result.layout == ("mixtral" if case.trunk.moe else "llama")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(result.path).eval()
    with torch.no_grad():
        logits = theirs(tokens()).logits
    ours = our_logits(model)
    assert ours.abs().max() > 1
    torch.testing.assert_close(ours, logits, atol=TOLERANCE, rtol=TOLERANCE)


def their_model(kind: str, **changes: Any) -> Any:
    common = {
        "vocab_size": 257,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    } | changes
    torch.manual_seed(0)
    if kind == "llama":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common)).eval()
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(num_local_experts=4, **common)).eval()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "head_dim": 16}),
        ("mixtral", {}),
    ],
)
def test_their_weights_give_equal_logits_here(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = their_model(kind, **changes)
    theirs.save_pretrained(tmp_path)
    opened = read_export(tmp_path)
    model = build_model(opened.config)
    model.load_state_dict(opened.state)
    with torch.no_grad():
        logits = theirs(tokens()).logits
    torch.testing.assert_close(our_logits(model.eval()), logits, atol=TOLERANCE, rtol=TOLERANCE)
    assert opened.context == 64


@pytest.mark.parametrize("case", [config(), config(moe=MIXTRAL), config(scaling=LLAMA3)])
def test_write_then_read_gives_the_same_weights(case: ModelConfig, tmp_path: Path) -> None:
    model = build_model(case, seed=3)
    write_export(tmp_path / "out", config=case, state=model.state_dict(), context=64)
    opened = read_export(tmp_path / "out")
    assert opened.config == case
    again = build_model(opened.config)
    again.load_state_dict(opened.state)
    assert torch.equal(our_logits(again), our_logits(model))


def test_tokenizer_of_the_export_is_ours(tmp_path: Path) -> None:
    case = config()
    write_export(tmp_path / "out", config=case, state=build_model(case).state_dict(), context=64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode("na\u00efve") == list("na\u00efve".encode())
    assert tokenizer.eos_token_id == 256


def test_a_biased_router_keeps_our_layout_and_says_why(tmp_path: Path) -> None:
    case = config(moe=MIXTRAL)
    state = build_model(case).state_dict()
    state["trunk.blocks.0.mlp.router.bias"][1] = 0.5
    result = write_export(tmp_path / "out", config=case, state=state, context=64)
    assert result.layout == "rsc"
    assert "choice bias" in result.reason
    opened = read_export(tmp_path / "out")
    assert all(torch.equal(opened.state[name], state[name]) for name in state)


def test_shards_and_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", 20_000)
    case = config()
    model = build_model(case, seed=3)
    result = write_export(tmp_path / "out", config=case, state=model.state_dict(), context=64)
    index = json.loads((result.path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f for f in result.files if f.endswith(".safetensors")}
    assert len(set(index["weight_map"].values())) > 3
    theirs = transformers.AutoModelForCausalLM.from_pretrained(result.path).eval()
    with torch.no_grad():
        torch.testing.assert_close(our_logits(model), theirs(tokens()).logits, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    case = config()
    state = build_model(case).state_dict()
    state["trunk.blocks.0.unknown"] = torch.zeros(1)
    with pytest.raises(KeyError):
        write_export(tmp_path / "out", config=case, state=state, context=64)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        write_export(tmp_path, config=config(), state={}, context=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"sliding_window": 4096}, "sliding_window = 4096"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
    ],
)
def test_what_the_trunk_cannot_do_is_refused_by_name(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    their_model("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConfigError, match=words):
        read_export(tmp_path)


def test_missing_tensor_and_foreign_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.safetensors file"):
        read_export(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        read_export(tmp_path)
    their_model("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match=r"no tensor model.layers.2"):
        read_export(tmp_path)


def test_an_export_carries_the_bag_and_what_it_counted(tmp_path: Path) -> None:
    head = HeadConfig(kind="classes", labels=("a", "b"), balance=0.5)
    case = config().model_copy(
        update={
            "trunk": config().trunk.model_copy(update={"causal": False}),
            "head": head,
            "bag": BagConfig(ngrams=(1, 2), rows=64, min_texts=1),
        }
    )
    model = build_model(case, seed=3)
    batch = {"tokens_BL": tokens(), "text_length_B": torch.tensor([40, 33])}
    counts = fresh_counts(case)
    add_counts(counts, {**batch, "label_B": torch.tensor([0, 1])}, config=case)
    counts["head.bag.num_texts"] += 1000  # more than bf16 tells apart
    fill_counts([model], counts)
    widen(model).get_parameter("head.bag.table.weight").data.normal_()
    folder = tmp_path / "out"
    write_export(folder, config=case, state=model.state_dict(), context=64, dtype=torch.bfloat16)
    opened = read_export(folder)
    again = build_model(opened.config)
    again.load_state_dict(opened.state)
    assert all(torch.equal(again.get_buffer(name), count) for name, count in counts.items())
    whole = model.to(torch.bfloat16)
    torch.testing.assert_close(
        again.eval().to(torch.bfloat16)(batch, Want.LOGITS), whole(batch, Want.LOGITS), atol=0, rtol=0
    )


def llama(folder: Path, **settings: Any) -> Any:
    """A small model of somebody else's, saved to `folder`."""
    made = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **settings,
        )
    )
    made.save_pretrained(folder)
    return made


def change(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    """The same folder with other tensors and settings."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    held = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | settings))
    return folder


PROJECTION = "model.layers.0.self_attn.q_proj"
EIGHT_BITS = torch.float8_e4m3fn


@pytest.mark.parametrize(
    ("added", "settings", "message"),
    [
        ({f"{PROJECTION}.bias": torch.zeros(32)}, {}, "has no place for"),
        ({f"{PROJECTION}.weight_scale": torch.ones(1)}, {}, "has no place for"),
        ({f"{PROJECTION}.lora_A.weight": torch.ones(4, 32)}, {}, "has no place for"),
        ({f"{PROJECTION}.weight": torch.ones(32, 32).to(EIGHT_BITS)}, {}, "quantised weights"),
        ({f"{PROJECTION}.weight": torch.ones(31, 32)}, {}, "do not have the shapes"),
        ({"model.embed_tokens.weight": torch.ones(110, 32)}, {}, "110 rows of tokens"),
        ({}, {"quantization_config": {"quant_method": "fp8"}}, "quantised"),
        ({}, {"vocab_size": 90}, "vocab_size 90"),
    ],
)
def test_weights_that_would_be_taken_for_others_are_refused(
    added: dict[str, torch.Tensor], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    made = llama(tmp_path / "theirs")
    folder = change(tmp_path / "theirs", {**made.state_dict(), **added}, **settings)
    with pytest.raises(ConfigError, match=message):
        read_export(folder)


def test_a_matrix_that_input_and_output_share_is_the_embedding_whatever_else_is_there(tmp_path: Path) -> None:
    made = llama(tmp_path / "theirs", tie_word_embeddings=True)
    tensors = {**made.state_dict(), "lm_head.weight": torch.randn(100, 32)}
    opened = read_export(change(tmp_path / "theirs", tensors))
    head, embedding = opened.state["head.weight"], opened.state["stems.text.embedding.weight"]
    assert torch.equal(head, embedding)


def test_a_number_that_half_precision_cannot_hold_is_not_exported(tmp_path: Path) -> None:
    state = widen(build_model(config(), seed=3)).state_dict()
    state["head.weight"][0, 0] = 1e6
    with pytest.raises(ConfigError, match=r"head\.weight holds 1e\+06") as caught:
        write_export(tmp_path / "out", config=config(), state=state, context=64, dtype=torch.float16)
    assert "bfloat16" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()
    write_export(tmp_path / "out", config=config(), state=state, context=64, dtype=torch.bfloat16)


@pytest.mark.parametrize("separator", [0, 1, None])
def test_the_end_of_a_document_is_the_one_of_training(separator: int | None, tmp_path: Path) -> None:
    """Id 0 is an id; a file of somebody else's has no token of ours."""
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "the": 2}, unk_token="the")
    )
    inner.add_special_tokens(["<s>", "</s>"])
    inner.save(str(tmp_path / "theirs.json"))
    text = TextConfig(vocabulary=3, tokenizer=str(tmp_path / "theirs.json"))
    case = config().model_copy(update={"text": text})
    state = build_model(case).state_dict()
    out = write_export(tmp_path / "out", config=case, state=state, context=64, separator=separator).path
    (tmp_path / "theirs.json").unlink()
    values = json.loads((out / "config.json").read_text())
    marks = json.loads((out / "tokenizer_config.json").read_text())
    assert values["eos_token_id"] == values["bos_token_id"] == separator
    assert marks.get("eos_token") == (None if separator is None else ["<s>", "</s>"][separator])
    opened = read_export(out)
    assert opened.separator == separator
    assert opened.config.text is not None
    assert opened.config.text.tokenizer == str(out / "tokenizer.json")
