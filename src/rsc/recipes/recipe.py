"""A recipe: the sections of all rooms in one frozen model, and the rules between them. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rsc.checkpoint.config import CheckpointConfig
from rsc.cluster.config import ClusterConfig
from rsc.errors import ConfigError
from rsc.layers import FrozenModel, Resolved, parse_as, resolve, with_defaults
from rsc.loader.config import DataConfig
from rsc.models.config import ModelConfig, with_tokenizer_in
from rsc.parallel.choose import choose_layout
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout, ModelFacts
from rsc.recipes.sections import EvalConfig, TrainConfig
from rsc.runs.code_version import code_facts
from rsc.runs.folder import RunFolder
from rsc.untrusted import UntrustedFolder


class Recipe(FrozenModel):
    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def is_packed_language(self) -> bool:
        """Whether documents are packed end to end, so that every sample has the same length."""
        return self.model.task.is_language

    def layout(self, *, world: int) -> Layout:
        """The mesh of a job of `world` ranks. Raises ConfigError when there is none that fits."""
        if self.train.compile == "blocks" and self.parallel.splits_backward:
            raise ConfigError(
                "train.compile = blocks and pp_schedule = zero_bubble: gradients of weights cannot be put "
                "off through compiled code",
                hint="set train.compile=off, or parallel.pp_schedule=interleaved",
            )
        return choose_layout(self.parallel, world=world, facts=self.facts())

    def _refusals(self) -> Iterator[tuple[str, str]]:
        """Axes that do not serve this model, with the reason."""
        model = self.model
        yield from model.task.refused_axes()
        if model.trunk.documents == "joined" and not self.is_packed_language:
            reason = "sequences are padded, and with trunk.documents = joined everything looks at padding"
            yield from (("tp", reason), ("cp", reason))

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
            refusals=tuple(self._refusals()),
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


def recipe_of(run: RunFolder) -> Recipe:
    """The settings a run was started with.

    Raises ConfigError; where another version made the run, it names that version and what works.
    """
    try:
        if not UntrustedFolder(run.path).exists("resolved.toml"):  # a FIFO there would wait for ever
            raise ConfigError(
                f"run {run.id} has no resolved.toml", hint="it cannot be gone on with; start another"
            )
        recipe = load_recipe(str(run.path / "resolved.toml")).recipe
    except ConfigError as error:
        raise _of_another_version(run, error) or error from None
    return recipe.model_copy(update={"model": with_tokenizer_in(recipe.model, run.path)})


def _of_another_version(run: RunFolder, error: ConfigError) -> ConfigError | None:
    """The complaint about a run that other code made; None where it was this code, or nobody knows."""
    record, ours = run.record(), code_facts()
    theirs = record.lineage.get("code", ours)
    if theirs == ours:
        return None
    told = [f"{code['version']} (sources {code['sources_sha256'][:12]})" for code in (theirs, ours)]
    get_it = f"install openrsc {theirs['version']}"
    if theirs["version"] == ours["version"]:
        get_it = f"check out the sources of that time (git rev-list -1 --before={record.created} HEAD)"
    return ConfigError(
        f"run {run.id} was made by version {told[0]}, this is {told[1]}: {error.message}",
        hint=f"{get_it} and go on there, or `rsc runs export {run.id}` there and start here from that "
        "folder (model.init_from=FOLDER)",
    )
