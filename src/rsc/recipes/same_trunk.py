"""May the weights of one trunk start another? Weights are taken over by name and shape, and a setting that
has no shape (the rotary base) would be filled with weights that mean something else. No torch here.
"""

from __future__ import annotations

from typing import Any

from rsc.errors import ConfigError
from rsc.models.config import TrunkConfig

_OF_THE_TASK = {"causal", "documents"}  # what the new task asks of the trunk, not what its weights are


def require_same_trunk(theirs: TrunkConfig, *, ours: TrunkConfig, of: str) -> None:
    """Raises ConfigError with the settings to change."""
    found, wanted = _meaning(theirs), _meaning(ours)
    wrong = {name: value for name, value in found.items() if value != wanted[name]}
    if wrong:
        told = ", ".join(f"{name} {value} (the recipe has {wanted[name]})" for name, value in wrong.items())
        wanted_settings = {name: value for name, value in wrong.items() if value is not None}
        settings = " ".join(f"model.trunk.{name}={value}" for name, value in wanted_settings.items())
        raise ConfigError(f"model.init_from: {of} has another trunk: {told}", hint=f"set {settings}")


def _meaning(trunk: TrunkConfig) -> dict[str, Any]:
    """What the weights of a trunk mean, with the defaults that depend on other settings written out."""
    values = trunk.model_dump(exclude=_OF_THE_TASK)
    return {**values, "num_kv_heads": trunk.kv_heads, "head_width": trunk.head_features}
