"""A recipe: the sections of all rooms in one frozen model, and the rules between them. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rsc.checkpoint.config import CheckpointConfig
from rsc.config import FrozenModel, Resolved, parse_as, resolve, with_defaults
from rsc.errors import ConfigError
from rsc.loader.config import DataConfig
from rsc.models.config import ModelConfig
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout, ModelFacts, choose_layout
from rsc.train.config import EvalConfig, TrainConfig


class Recipe(FrozenModel):
    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()

    @property
    def is_packed_language(self) -> bool:
        """Whether documents are packed end to end, so that every sample has the same length."""
        return self.model.head.kind == "next_token"

    def layout(self, *, world: int) -> Layout:
        """The mesh of a job of `world` ranks. Raises ConfigError when there is none that fits."""
        parallel = self.parallel
        self._check_axes()
        return choose_layout(parallel, world=world, facts=self.facts())

    def _check_axes(self) -> None:
        """What a domain does not allow, with the reason."""
        model, parallel = self.model, self.parallel
        if parallel.pp > 1 and model.head.kind == "contrastive":
            raise ConfigError(
                f"pp {parallel.pp}: a contrastive head compares every sample of a batch with every other, "
                "and a pipeline cuts the batch into microbatches that never meet",
                hint="set parallel.pp=1; tp, cp, dp_shard and ep serve a contrastive model",
            )
        has_ngrams = model.text is not None and bool(model.text.ngrams)
        if parallel.cp > 1 and has_ngrams and model.head.kind in ("next_token", "masked_token"):
            raise ConfigError(
                f"cp {parallel.cp}: a token model is cut along the sequence before its stem, and n-grams "
                "need the tokens before the cut",
                hint="set model.text.ngrams=[], or parallel.cp=1",
            )
        cuts_sequence = parallel.cp > 1 or parallel.tp > 1
        if cuts_sequence and model.trunk.documents == "joined" and not self.is_packed_language:
            raise ConfigError(
                f"tp {parallel.tp} x cp {parallel.cp} pads sequences to a length that divides, and with "
                "trunk.documents = joined everything looks at the padding",
                hint="set model.trunk.documents=masked",
            )

    def facts(self) -> ModelFacts:
        """What a mesh must divide."""
        trunk = self.model.trunk
        divisors = [("num_kv_heads", trunk.kv_heads), ("mlp_width", trunk.mlp_width)]
        if self.model.text is not None:
            divisors.append(("padded vocabulary", self.model.text.rows))
        return ModelFacts(
            num_blocks=trunk.num_layers,
            batch_size=self.train.batch_size,
            accumulate=self.train.accumulate,
            sequence_length=self.data.sequence_length if self.is_packed_language else 0,
            divisors=tuple(divisors),
            num_experts=trunk.moe.num_experts if trunk.moe is not None else 0,
        )


@dataclass(frozen=True)
class LoadedRecipe:
    recipe: Recipe
    resolved: Resolved
    """Every setting with its default written out, and where each came from."""


def load_recipe(name: str, *, overrides: Iterable[str] = ()) -> LoadedRecipe:
    """Read, merge, check. Raises ConfigError with the key, where it was written and the nearest name."""
    resolved = resolve(name, overrides=overrides)
    recipe = parse_as(Recipe, resolved)
    return LoadedRecipe(recipe, with_defaults(recipe, resolved))
