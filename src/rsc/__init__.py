"""RSC: an AI research supercluster in software. Start reading at docs/follow-a-record.md.

From Python: `import rsc`, then `rsc.api.import_data(...)` and so on (rsc/api).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rsc import api as api

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "api":
        raise AttributeError(f"module 'rsc' has no attribute {name!r}")
    return import_module("rsc.api")
