"""One drive of a run: from taking its lock to the last word about it.

While it lasts, the key agent answers the workers, a mover brings data from an object store, checkpoints are
copied away, and a supervisor that is lost is started again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rsc.checkpoint.replicas import Copies
from rsc.clock import Clock
from rsc.cluster.accounting.energy import EnergyMeter, counters
from rsc.cluster.launch.launcher import Launcher, NodeCommand
from rsc.cluster.sandbox.wrap import Level, Wrapped
from rsc.cluster.supervise.failures import Restarts
from rsc.config import Workspace
from rsc.control.admission import Gate, cipher_of
from rsc.control.checkpoint_copier import Courier, open_copies, send_papers
from rsc.control.job import ManyNodesJob, possible_worlds
from rsc.control.monitor import StepProgress, Watched
from rsc.control.mover_process import fetching_for
from rsc.control.wishes import Hangup, Wishes
from rsc.errors import ConfigError, Interrupted, RequeueMe
from rsc.recipes.recipe import Recipe
from rsc.release.agent.job_scope import Served
from rsc.release.agent.measured_code import bytecode_folders
from rsc.runs.folder import RunFolder, RunState
from rsc.runs.node_job import NodeJob
from rsc.runs.worker_events import WorkerEventTail
from rsc.store.cache.mover_client import socket_beside


@dataclass(frozen=True)
class Drive:
    run: RunFolder
    recipe: Recipe
    isolation: Level
    workspace: Workspace
    gate: Gate
    launcher: Launcher
    clock: Clock
    say: Callable[[str], None]
    line: Callable[[int], StepProgress]

    def to_its_end(self, opening: str) -> int:
        """Returns the exit code. `opening` is said when the run is ours."""
        run, recipe = self.run, self.recipe
        with (
            run.locked(),
            socket_folder() as socket,
            Wishes(Hangup(run, recipe.train.on_hangup)) as wishes,
            fetching_for(
                run, recipe.data, self.workspace, path=socket_beside(socket), say=self.say, clock=self.clock
            ),
        ):
            self.say(f"run {run.id}: {opening}")
            copies = open_copies(run, recipe.checkpoint, say=self.say)
            run.update(state=RunState.RUNNING, reason="", steps=recipe.train.steps)
            command = self.command(socket)
            self.gate.record_drive(run.id, isolation=_isolation_text(command))
            controllers = 1 if recipe.cluster.nodes > 1 else 0
            with (
                self.gate.serve(socket, serves=served_by(run, recipe, controllers=controllers)),
                EnergyMeter(counters()) as meter,
            ):
                watched = self._supervise(command, wishes=wishes, copies=copies)
            if meter.used_wh is not None:  # for the card
                self._note("energy", used_wh=round(meter.used_wh, 3), source=meter.source)
            self._note_end(watched)
            send_papers(copies, precision=run.precision(), say=self.say)
            return self._conclude(watched)

    def command(self, socket: Path) -> Wrapped:
        """The supervisor's command line, in the strongest sandbox the policy wants and the machine gives."""
        run, recipe = self.run, self.recipe
        nodes = recipe.cluster.nodes
        job = NodeJob(
            run=str(run.path),
            data=str(self.workspace.bulk),
            recipe=recipe.model_dump(mode="json"),
            workers=recipe.parallel.workers // nodes,
            socket=str(socket),
            cipher=cipher_of(self.gate, self.gate.origin(run.id)),
        )
        shown = [self.workspace.cache]
        if isinstance(self.workspace.bulk, Path):
            shown = [self.workspace.bulk / each.name for each in recipe.data.sets]
        else:
            job = replace(job, cache=str(self.workspace.cache), mover=str(socket_beside(socket)))
        # Bytecode could differ from the source that is measured: under strict policies Python compiles it.
        bytecode = bytecode_folders() if self.isolation == "required" else []
        parent = [self.workspace.runs / recipe.model.init_from] if recipe.model.init_from else []
        # The run's folder is read-only but for some parts: a worker that could change its papers would choose
        # what the next start reads, whose keys it is served, and which data the run is said to come from. The
        # folder, for the kernel lets go of a single file shown read-only when its name gets another file.
        wrapped = self.launcher.prepare(
            NodeCommand(
                argv=(sys.executable, "-m", "rsc.train.node", job.to_json()),
                needs_network=nodes > 1,
                level=self.isolation,
                writable=tuple(run.parts_of_workers()),
                readable=(*shown, socket.parent, *parent, run.path),
                folder=run.path,
                hidden=(self.workspace.keys, self.workspace.identities, self.workspace.audit, *bytecode),
            )
        )
        if not wrapped.is_isolated:
            self.say(f"workers are not isolated: {wrapped.reason}")
        return wrapped if nodes == 1 else self._over_nodes(wrapped, job)

    def _over_nodes(self, wrapped: Wrapped, job: NodeJob) -> Wrapped:
        """The command of the job's controller, which starts that of an agent on each node."""
        cluster = self.recipe.cluster
        nodes = self.launcher.nodes(cluster.nodes + cluster.spares)
        if job.mover is not None and any(node.is_elsewhere for node in nodes):
            raise ConfigError(
                "several machines cannot train on data in an object store yet: only the first has its mover",
                hint="copy the data set into a folder that all nodes reach (data.location), or use one node",
            )
        plan = ManyNodesJob(
            node_job=asdict(job),
            before=wrapped.argv[:-1],
            nodes=[node.to_record() for node in nodes],
            worlds=possible_worlds(self.recipe, most=self.recipe.parallel.workers),
            workspace=str(self.workspace.root),
        )
        argv = [sys.executable, "-m", "rsc.control.job", json.dumps(asdict(plan))]
        return replace(wrapped, argv=argv)

    def _supervise(self, command: Wrapped, *, wishes: Wishes, copies: Copies | None) -> Watched:
        """One supervisor after the other, until one ends by itself or none gets any further."""
        restarts = Restarts(limit=self.recipe.train.max_failures_without_progress)
        while True:
            self._note(
                "driven",
                workers=self.recipe.parallel.workers,
                isolated=command.is_isolated,
                method=command.method,
                reason=command.reason,
            )
            watched = self._watch(command, wishes=wishes, copies=copies)
            if not watched.is_supervisor_lost:
                return watched
            restarts = restarts.after(step=watched.step)
            if restarts.is_crash_loop:
                return watched
            self._tell_lost(watched)

    def _watch(self, command: Wrapped, *, wishes: Wishes, copies: Copies | None = None) -> Watched:
        """Start the supervisor and follow what it tells until it ends."""
        line = self.line(self.run.record().steps)
        tail = WorkerEventTail(self.run.path)
        events = self.run.events(clock=self.clock)
        courier = Courier(copies, events=events, say=self.say) if copies is not None else None
        watched = Watched(line, self.say, events, tail, courier, steps=self.run.record().steps)
        with self.launcher.start(command) as process:
            watched.follow(process, wishes=wishes)
        watched.close()
        return watched

    def _tell_lost(self, watched: Watched) -> None:
        """The supervisor's own end is a failure like a worker's: told, counted, and started again."""
        run, code = self.run, watched.exit_code
        self._note("failure", step=watched.step, rank=None, reason="supervisor", message=f"code {code}")
        run.update(**watched.changes(run.record()))
        run.update(state=RunState.RUNNING, reason="", restarts=run.record().restarts + 1)
        self.say(f"the supervisor was ended by a signal (code {code}) at step {watched.step}: started again")

    def _note(self, kind: str, **facts: Any) -> None:
        events = self.run.events(clock=self.clock)
        events.append(kind, **facts)
        events.close()

    def _note_end(self, watched: Watched) -> None:
        """A disk that is full by now costs the record its last change, not the user the last word."""
        try:
            self.run.update(**watched.changes(self.run.record()))
        except OSError as error:
            self.say(f"run.json was not written: {error.strerror}; it shows the run as interrupted")

    def _conclude(self, watched: Watched) -> int:
        """Say how it ended, in one sentence, and what to do next."""
        run = self.run
        told = {
            0: f"run {run.id} finished at step {watched.step}",
            RequeueMe.exit_code: f"run {run.id} is checkpointed at step {watched.step}; start it again",
            Interrupted.exit_code: f"run {run.id} was interrupted; it goes on from its newest checkpoint",
        }
        self.say(told.get(watched.exit_code, f"run {run.id} failed at step {watched.step}: {watched.reason}"))
        if watched.hint:
            self.say(f"hint: {watched.hint}")
        return watched.exit_code


def _isolation_text(command: Wrapped) -> str:
    """For the log."""
    return f"isolated ({command.method})" if command.is_isolated else f"not isolated: {command.reason}"


def served_by(run: RunFolder, recipe: Recipe, *, controllers: int) -> Served:
    """The keys that the workers of this run need; `controllers` as there."""
    versions = {each.name: each.version for each in recipe.data.sets if each.version is not None}
    runs = frozenset(name for name in (run.id, recipe.model.init_from) if name)
    return Served(versions, runs, controllers=controllers)


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A short private folder for the agent's socket: the path of a unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="rsc-") as folder:
        yield Path(folder) / "agent.sock"
