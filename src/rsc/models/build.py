"""Put stems, trunk and head together: `build_model(config)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from rsc.models.config import AudioConfig, ModelConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.models.initial import STD, first_value
from rsc.models.moe import MoE
from rsc.models.placement import PlacementPlan, placement_plan
from rsc.models.stems import AudioStem, ImageStem, TextStem, first
from rsc.models.trunk import Block, GatedMLP, Trunk

Batch = Mapping[str, torch.Tensor]
Answer = dict[str, torch.Tensor]


class Model(nn.Module):
    """stems -> trunk -> head. A pipeline stage sets `stems` or `head` to None and pops foreign blocks.

    Batch keys, B samples, L positions (rsc/train/batches/collate.py makes them from a loader's batch):
      packed language   tokens_BL; targets_BL (-100: not counted); document_ids_BL, positions_L optional
      other text        tokens_BL, text_length_B
      images            image_BHWC; image_present_B optional
      sound             audio_BS, audio_length_B in samples
      in training       draw_B, the seed of what is random about each sample (models/sample_random.py)
      answers           label_B | labels_BK | symbols_BU, symbol_count_B
    Stems that are present feed one sequence: image, audio, text. Positions without input are masked.
    """

    stems: nn.ModuleDict | None
    head: nn.Module | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stems = nn.ModuleDict(dict(_stems(config)))
        self.trunk = Trunk(config.trunk, blocks=_blocks(config.trunk))
        self.head = config.task.build_head()

    def forward(self, batch: Batch, want: Want = Want.LOSS) -> Answer:
        """What `want` names, as a dict of tensors. Three hops: embed, run, answer."""
        if self.config.task.compares_samples:
            return self._compare(batch, want)
        return self.answer(self.run(self.embed(batch), batch), batch, want)

    def embed(self, batch: Batch) -> torch.Tensor:
        """Inputs of the batch as one sequence of vectors [B, L, D]."""
        assert self.stems is not None, "this pipeline stage has no stems"
        parts = [self._embed_one(name, batch) for name in self.stems]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def run(self, hidden_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The blocks this process holds, and the last norm if it holds that. [B, L, D] -> [B, L, D]."""
        document_ids_BL = batch.get("document_ids_BL")
        real_BL = real_positions(batch, config=self.config)
        if real_BL is not None:
            document_ids_BL = real_BL.long() - 1
        positions_L = batch.get("positions_L")
        if positions_L is None:
            positions_L = torch.arange(num_positions(batch, config=self.config), device=hidden_BLD.device)
        hidden_BLD = self.trunk(hidden_BLD, positions_L=positions_L, document_ids_BL=document_ids_BL)
        return hidden_BLD

    def answer(self, hidden_BLD: torch.Tensor, batch: Batch, want: Want) -> Answer:
        assert self.head is not None, "this pipeline stage has no head"
        real_BL = real_positions(batch, config=self.config)
        return self.head(hidden_BLD, real_BL, batch, want)  # type: ignore[no-any-return]

    def placement_plan(self) -> PlacementPlan:
        return placement_plan(self.config)

    def initial_value(self, name: str, *, shape: torch.Size, seed: int) -> torch.Tensor:
        """The whole first value of one parameter, the same wherever it is asked for."""
        return first_value(
            name,
            shape=shape,
            num_layers=self.config.trunk.num_layers,
            seed=seed,
            embedding_std=STD if self.config.text is None else self.config.text.initial_std,
        )

    def _embed_one(self, stem: str, batch: Batch) -> torch.Tensor:
        assert self.stems is not None
        draw_B = batch.get("draw_B")
        if stem == "text":
            return self.stems[stem](batch["tokens_BL"], draw_B, batch.get("positions_L"))  # type: ignore[no-any-return]
        if stem == "image":
            return self.stems[stem](batch["image_BHWC"], draw_B)  # type: ignore[no-any-return]
        return self.stems[stem](batch["audio_BS"], batch["audio_length_B"], draw_B)  # type: ignore[no-any-return]

    def _compare(self, batch: Batch, want: Want) -> Answer:
        """Each side alone through the same trunk, then every pair of them."""
        assert self.stems is not None
        assert self.head is not None
        hidden, reals = [], []
        for stem in sorted(self.stems, key=lambda name: name != "text"):
            real_BL = _real_of(stem, batch, config=self.config)
            ids_BL = None if real_BL is None else real_BL.long() - 1
            side_BLD = self._embed_one(stem, batch)
            places_L = torch.arange(side_BLD.shape[1], device=side_BLD.device)
            hidden.append(self.trunk(side_BLD, positions_L=places_L, document_ids_BL=ids_BL))
            reals.append(real_BL)
        return self.head(tuple(hidden), tuple(reals), batch, want)  # type: ignore[no-any-return]


def num_positions(batch: Batch, *, config: ModelConfig) -> int:
    """Length of the sequence that the stems make of a batch. Needs no weights, as `real_positions`."""
    return sum(positions_by_stem(batch, config=config).values())


def positions_by_stem(batch: Batch, *, config: ModelConfig) -> dict[str, int]:
    """Positions that each stem gives to the sequence."""
    counts = {}
    if config.image is not None:
        counts["image"] = config.image.num_positions
    if config.audio is not None:
        counts["audio"] = _sound_positions(batch, config=config.audio)
    if config.text is not None:
        words_B = TextStem.positions(batch["tokens_BL"], config=config.text)
        counts["text"] = batch["tokens_BL"].shape[1] if words_B is None else int(words_B.max())
    return counts


def real_positions(batch: Batch, *, config: ModelConfig) -> torch.Tensor | None:
    """Which positions of the sequence hold input, bool [B, L]; None when all do. Needs no weights, so any
    pipeline stage can ask."""
    names = [name for name in ("image", "audio", "text") if getattr(config, name) is not None]
    parts = [_real_of(name, batch, config=config) for name in names]
    if all(part is None for part in parts):
        return None
    filled = [
        _all_real(name, batch, config=config) if part is None else part
        for name, part in zip(names, parts, strict=True)
    ]
    return torch.cat(filled, dim=1)


def _real_of(stem: str, batch: Batch, *, config: ModelConfig) -> torch.Tensor | None:
    if stem == "text":
        assert config.text is not None
        words_B = TextStem.positions(batch["tokens_BL"], config=config.text)
        if words_B is not None:
            return first(words_B, of=int(words_B.max()))
        length_B = batch.get("text_length_B")
        return None if length_B is None else first(length_B, of=batch["tokens_BL"].shape[1])
    if stem == "image":
        present_B, image = batch.get("image_present_B"), config.image
        assert image is not None
        return None if present_B is None else present_B[:, None].expand(-1, image.num_positions)
    assert config.audio is not None
    most = _sound_positions(batch, config=config.audio)
    return first(AudioStem.positions(batch["audio_length_B"], config=config.audio), of=most)


def _sound_positions(batch: Batch, *, config: AudioConfig) -> int:
    samples = batch["audio_BS"].shape[1]
    return samples // config.hop // config.stack + 1 if samples else 0


def _all_real(stem: str, batch: Batch, *, config: ModelConfig) -> torch.Tensor:
    if stem == "text":
        return torch.ones_like(batch["tokens_BL"], dtype=torch.bool)
    image, image_BHWC = config.image, batch["image_BHWC"]
    assert image is not None, "sound always says which positions are real"
    shape = (len(image_BHWC), image.num_positions)
    return torch.ones(shape, dtype=torch.bool, device=image_BHWC.device)


def build_model(config: ModelConfig, *, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """A float32 model on `device`. On `meta` nothing is allocated; call `initialise` once it is placed."""
    with torch.device(device):
        model = Model(config)
    if torch.device(device).type != "meta":
        initialise(model, seed=seed)
    return model


@torch.no_grad()
def initialise(model: Model, *, seed: int) -> None:
    """Fill every (unsharded) parameter with its first value, at most one whole parameter extra in memory;
    buffers (the routers' biases and counts) start at zero."""
    for name, parameter in model.named_parameters():
        parameter.copy_(model.initial_value(name, shape=parameter.shape, seed=seed))
    for buffer in model.buffers():
        buffer.zero_()


def _stems(config: ModelConfig) -> Iterator[tuple[str, nn.Module]]:
    """In the order in which they stand in the sequence."""
    width = config.trunk.width
    if config.image is not None:
        yield "image", ImageStem(config.image, width=width)
    if config.audio is not None:
        yield "audio", AudioStem(config.audio, width=width)
    if config.text is not None:
        yield "text", TextStem(config.text, width=width)


def _blocks(config: TrunkConfig) -> Iterator[Block]:
    for layer in range(config.num_layers):
        if config.moe is not None and config.has_experts(layer):
            yield Block(config, mlp=MoE(config.moe, width=config.width))
        else:
            yield Block(config, mlp=GatedMLP(width=config.width, mlp_width=config.mlp_width))
