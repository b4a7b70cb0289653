"""`rsc train` itself: ask the gate, make the run, start the supervisor in the sandbox, tell what happens.

No torch in this process: it starts in a fraction of a second, refuses before any worker exists, and
holds the keys' agent while workers come and go.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsc.checkpoint.replicas import Copies
from rsc.clock import Clock, timestamp
from rsc.cluster.accounting.energy import EnergyMeter, counters
from rsc.cluster.launch.environment import HUGE_PAGES, PATIENT_THREADS
from rsc.cluster.sandbox.wrap import Level, Wrapped, wrap
from rsc.cluster.supervise.failures import Restarts
from rsc.config import Resolved, Workspace, to_toml
from rsc.control.admission import Gate, admit_all, isolation_of
from rsc.control.checkpoint_copier import Courier
from rsc.control.init_from import find_parent, with_parent
from rsc.control.monitor import ProgressLine, Watched, Wishes
from rsc.control.mover_process import Fetching
from rsc.errors import Interrupted, RequeueMe, RscError
from rsc.events import EventTail
from rsc.interrupts import uninterrupted
from rsc.parallel.layout import Layout
from rsc.recipes.pin import count_workers, pin
from rsc.recipes.recipe import LoadedRecipe, Recipe, recipe_of
from rsc.release.agent.job_scope import Served
from rsc.release.lifecycle.retention import retained_until
from rsc.runs.folder import RunFolder, RunState, events_of_workers
from rsc.runs.node_job import NodeJob
from rsc.store.cache.mover_client import socket_beside
from rsc.store.cache.node_cache import NodeCache
from rsc.store.dataset import Dataset
from rsc.store.mover import MoverJob


@dataclass(frozen=True)
class Controller:
    workspace: Workspace
    gate: Gate
    clock: Clock
    say: Callable[[str], None]

    def start(self, loaded: LoadedRecipe, *, workers: int | None = None) -> tuple[RunFolder, int]:
        """Make a run and drive it to its end; returns it with the exit code.

        Raises GateRefused and ConfigError before any process starts and before the folder is made.
        """
        admission = admit_all(self.gate, loaded.recipe.data, model=loaded.recipe.model)
        model = loaded.recipe.model
        parent = find_parent(model.init_from, runs=self.workspace.runs, trunk=model.trunk)
        resolved = pin(
            with_parent(loaded.resolved, parent.name) if parent else loaded.resolved,
            versions=admission.versions,
            workers=workers or count_workers(loaded.recipe),
        )
        recipe = Recipe.model_validate(resolved.values)
        layout = recipe.layout(world=recipe.parallel.workers)
        lineage = {**admission.lineage, "recipe_sha256": resolved.digest, "layout": str(layout)}
        if parent is not None:
            lineage["parent"] = parent.lineage
        isolation = isolation_of(self.gate, lineage)
        if isolation == "required":
            wrap(["true"], level=isolation)  # a machine that cannot is told before there is a run
        with uninterrupted():
            run = self._make(resolved, lineage=lineage, steps=recipe.train.steps)
        opening = f"{recipe.train.steps} steps on {_lineage_text(layout, recipe)}"
        return run, self._drive(run, recipe, isolation=isolation, opening=opening)

    def _make(self, resolved: Resolved, *, lineage: dict[str, Any], steps: int) -> RunFolder:
        run = RunFolder.create(
            self.workspace.runs, recipe=resolved.name, steps=steps, lineage=lineage, clock=self.clock
        )
        (run.path / "resolved.toml").write_text(to_toml(resolved))
        (run.path / "provenance.json").write_text(json.dumps(resolved.provenance, indent=1))
        self.gate.make_run_key(run)
        return run

    def resume(self, run: RunFolder) -> int:
        """Go on with a run at its newest checkpoint. A finished one says so and is left alone."""
        record = run.record()
        recipe = recipe_of(run)
        if record.state is RunState.FINISHED:
            self._copies(run, recipe)  # the last copy may have failed
            self.say(f"run {run.id} finished at step {record.step}; nothing is left to do")
            return 0
        admission = admit_all(self.gate, recipe.data, model=recipe.model)
        isolation = isolation_of(self.gate, {**record.lineage, **admission.lineage})
        opening = f"resuming, {record.steps} steps in all"
        return self._drive(run, recipe, isolation=isolation, opening=opening)

    def _drive(self, run: RunFolder, recipe: Recipe, *, isolation: Level, opening: str) -> int:
        with (
            run.locked(),
            _socket_folder() as socket,
            Wishes() as wishes,
            self._fetching(run, recipe, socket=socket),
        ):
            self.say(f"run {run.id}: {opening}")
            copies = self._copies(run, recipe)
            run.update(state=RunState.RUNNING, reason="")
            command = self._command(run, recipe, isolation=isolation, socket=socket)
            restarts = Restarts(limit=recipe.train.max_failures_without_progress)
            with self.gate.serve(socket, serves=_served(run, recipe)), EnergyMeter(counters()) as meter:
                self._note_start(run, command, workers=recipe.parallel.workers)
                watched = self._watch(run, command=command, wishes=wishes, copies=copies)
                while watched.is_supervisor_lost:
                    restarts = restarts.after(step=watched.step)
                    if restarts.is_crash_loop:
                        break
                    self._tell_lost(run, watched)
                    self._note_start(run, command, workers=recipe.parallel.workers)
                    watched = self._watch(run, command=command, wishes=wishes, copies=copies)
            _tell_energy(run, meter=meter, clock=self.clock)
            self._note_end(run, watched)
            self._send_papers(copies)
            return self._conclude(run, watched)

    def _fetching(
        self, run: RunFolder, recipe: Recipe, *, socket: Path
    ) -> AbstractContextManager[Fetching | None]:
        """Who brings data to this node, where it lies in an object store."""
        if isinstance(self.workspace.bulk, Path):
            return nullcontext()
        datasets = [
            Dataset.open(self.workspace.bulk, name=each.name, version=each.version)
            for each in recipe.data.sets
        ]
        job = MoverJob(
            location=self.workspace.bulk,
            cache=str(self.workspace.cache),
            limit_bytes=self.workspace.cache_bytes,
            connections=recipe.data.connections,
            sets=tuple((each.name, each.version, timestamp(retained_until(each))) for each in datasets),
        )
        NodeCache(self.workspace.cache, limit_bytes=job.limit_bytes).sweep()
        events = run.events(clock=self.clock)
        return Fetching(job, path=socket_beside(socket), events=events, say=self.say, clock=self.clock)

    def _note_end(self, run: RunFolder, watched: Watched) -> None:
        """A disk that is full by now costs the record its last change, not the user the last word."""
        try:
            run.update(**watched.changes(run.record()))
        except OSError as error:
            self.say(f"run.json was not written: {error.strerror}; it shows the run as interrupted")

    def _note_start(self, run: RunFolder, command: Wrapped, *, workers: int) -> None:
        events = run.events(clock=self.clock)
        sandbox = {"isolated": command.is_isolated, "method": command.method, "reason": command.reason}
        events.append("driven", workers=workers, **sandbox)
        events.close()

    def _tell_lost(self, run: RunFolder, watched: Watched) -> None:
        """The supervisor's own end is a failure like a worker's: told, counted, and started again."""
        code = watched.exit_code
        events = run.events(clock=self.clock)
        events.append("failure", step=watched.step, rank=None, reason="supervisor", message=f"code {code}")
        events.close()
        run.update(**watched.changes(run.record()))
        run.update(state=RunState.RUNNING, reason="", restarts=run.record().restarts + 1)
        self.say(f"the supervisor was ended by a signal (code {code}) at step {watched.step}: started again")

    def _copies(self, run: RunFolder, recipe: Recipe) -> Copies | None:
        """The run's copies, up to date in both directions, before any worker starts.

        Raises ResourceError when the store does not answer: a run that should be safe elsewhere would not be.
        """
        config = recipe.checkpoint
        if not config.folder:
            return None
        copies = Copies(config.folder, run=run.path, keep=config.keep, keep_every=config.keep_every)
        pulled = copies.pull()
        for bad in pulled.damaged_here:
            self.say(f"the checkpoint of step {bad} here is damaged")
        for bad in pulled.damaged_copies:
            self.say(f"the copy of step {bad} in {config.folder} is damaged; the one before is tried")
        if pulled.step is not None:
            self.say(f"checkpoint of step {pulled.step} fetched from {config.folder}")
        copies.push_newest()
        copies.push_papers()
        return copies

    def _send_papers(self, copies: Copies | None) -> None:
        """The record as it ended. A store that does not answer now costs the word, not the run."""
        if copies is not None:
            try:
                copies.push_papers()
            except RscError as error:
                self.say(f"the run's record was not copied: {error.message}")

    def _watch(
        self, run: RunFolder, *, command: Wrapped, wishes: Wishes, copies: Copies | None = None
    ) -> Watched:
        """Start the supervisor and follow what it tells until it ends."""
        line = ProgressLine(steps=run.record().steps)
        tail = EventTail(events_of_workers(run.path))
        events = run.events(clock=self.clock)
        courier = Courier(copies, events=events, say=self.say) if copies is not None else None
        watched = Watched(line, self.say, events, tail, courier)
        with subprocess.Popen(
            command.argv,
            env={**HUGE_PAGES, **PATIENT_THREADS, **command.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            watched.follow(process, wishes=wishes)
        watched.close()
        return watched

    def _command(self, run: RunFolder, recipe: Recipe, *, isolation: Level, socket: Path) -> Wrapped:
        """The supervisor's command line, in the strongest sandbox the policy wants and the machine gives."""
        job = NodeJob(
            run=str(run.path),
            data=str(self.workspace.bulk),
            recipe=recipe.model_dump(mode="json"),
            workers=recipe.parallel.workers,
            socket=str(socket),
        )
        shown = [self.workspace.cache]
        if isinstance(self.workspace.bulk, Path):
            shown = [self.workspace.bulk / each.name for each in recipe.data.sets]
        else:
            job = replace(job, cache=str(self.workspace.cache), mover=str(socket_beside(socket)))
        command = [sys.executable, "-m", "rsc.train.node", job.to_json()]
        parent = [self.workspace.runs / recipe.model.init_from] if recipe.model.init_from else []
        # The run's folder is read-only but for some parts: a worker that could change its papers would choose
        # what the next start reads, whose keys it is served, and which data the run is said to come from. The
        # folder, for the kernel lets go of a single file shown read-only when its name gets another file.
        wrapped = wrap(
            command,
            level=isolation,
            writable=run.parts_of_workers(),
            readable=[*shown, socket.parent, *parent, run.path],
            folder=run.path,
            hidden=[self.workspace.keys, self.workspace.identities, self.workspace.audit],
        )
        if not wrapped.is_isolated:
            self.say(f"workers are not isolated: {wrapped.reason}")
        return wrapped

    def _conclude(self, run: RunFolder, watched: Watched) -> int:
        """Say how it ended, in one sentence, and what to do next."""
        told = {
            0: f"run {run.id} finished at step {watched.step}",
            RequeueMe.exit_code: f"run {run.id} is checkpointed at step {watched.step}; start it again",
            Interrupted.exit_code: f"run {run.id} was interrupted; it goes on from its newest checkpoint",
        }
        self.say(told.get(watched.exit_code, f"run {run.id} failed at step {watched.step}: {watched.reason}"))
        if watched.hint:
            self.say(f"hint: {watched.hint}")
        return watched.exit_code


def _served(run: RunFolder, recipe: Recipe) -> Served:
    """The keys that the workers of this run need."""
    versions = {each.name: each.version for each in recipe.data.sets if each.version is not None}
    return Served(versions, frozenset(name for name in (run.id, recipe.model.init_from) if name))


def _tell_energy(run: RunFolder, *, meter: EnergyMeter, clock: Clock) -> None:
    """One event per drive, for the card; none where there is no meter."""
    if meter.used_wh is None:
        return
    events = run.events(clock=clock)
    events.append("energy", used_wh=round(meter.used_wh, 3), source=meter.source)
    events.close()


@contextmanager
def _socket_folder() -> Iterator[Path]:
    """A short private folder for the agent's socket: the path of a unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="rsc-") as folder:
        yield Path(folder) / "agent.sock"


def _lineage_text(layout: Layout, recipe: Recipe) -> str:
    workers = recipe.parallel.workers
    if workers == 1:
        return "1 worker: one process that uses every core is faster than ranks that exchange weights"
    return f"{workers} workers; {layout.why}"
