"""Nobody imports meanwhile: for erasures and rotations, which have to know every version that there is.

Not covered: in a place that workspaces share, what other machines import, and what they began and left
without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.store.staging import list_unfinished, only_writer


@contextmanager
def no_imports(workspace: Workspace, names: Iterable[str]) -> Iterator[None]:
    """Hold these data sets, and remove what was begun in them and cannot go on.

    Raises ConfigError while an import runs, and for one that was stopped and can go on.
    """
    with ExitStack() as held:
        for name in names:
            held.enter_context(only_writer(workspace.data / name))
            _settle_unfinished(workspace, name)
        yield


def _settle_unfinished(workspace: Workspace, name: str) -> None:
    for unfinished in list_unfinished(workspace.bulk, name):
        if unfinished.is_resumable():
            raise ConfigError(
                f"an import into {name} was stopped half-way: nobody can look through {unfinished.folder}",
                hint="finish it by the command that began it, or delete that folder; then try again",
            )
        if workspace.bulk == workspace.data:
            unfinished.remove()
