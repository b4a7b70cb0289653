"""What the commands do, from Python: `import rsc`, then `rsc.api.import_data(...)`, `rsc.api.train(...)`.

Each function works in the workspace that `RSC_HOME` names, asks the same gate and key agent as the command of
that name, writes into the same log, and returns a record with `to_json()`: what the command prints with
`--json`. Functions raise what the commands print (`rsc.errors`). docs/python.md has them in order.

A name is imported when it is first used, so that `import rsc` and what needs no model stay free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsc.api.datasets import data_set, data_sets, verify_data
    from rsc.api.endings import erase, expire, trace
    from rsc.api.exports import export
    from rsc.api.imports import import_columns, import_data
    from rsc.api.models import evaluate, generate, predict
    from rsc.api.reviews import review
    from rsc.api.run_records import compare, remove_run, run, runs
    from rsc.api.slurm_jobs import cluster_status, explain
    from rsc.api.torch_data import TrainingData
    from rsc.api.training import resume, train
    from rsc.api.verdicts import approve, reject

__all__ = [
    "TrainingData",
    "approve",
    "cluster_status",
    "compare",
    "data_set",
    "data_sets",
    "erase",
    "evaluate",
    "expire",
    "explain",
    "export",
    "generate",
    "import_columns",
    "import_data",
    "predict",
    "reject",
    "remove_run",
    "resume",
    "review",
    "run",
    "runs",
    "trace",
    "train",
    "verify_data",
]

_MODULES = {
    "imports": ("import_columns", "import_data"),
    "datasets": ("data_set", "data_sets", "verify_data"),
    "reviews": ("review",),
    "verdicts": ("approve", "reject"),
    "endings": ("erase", "expire", "trace"),
    "training": ("resume", "train"),
    "run_records": ("compare", "remove_run", "run", "runs"),
    "slurm_jobs": ("cluster_status", "explain"),
    "models": ("evaluate", "generate", "predict"),
    "exports": ("export",),
    "torch_data": ("TrainingData",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rsc.api' has no attribute {name!r}")
    return getattr(import_module(f"rsc.api.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
