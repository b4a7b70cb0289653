"""The end of data, of one person's or of all of it: `rsc data trace erase expire`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rsc.api.record import Record, entry
from rsc.errors import ConfigError
from rsc.release.agent.custody import Custody
from rsc.release.lifecycle import erase as lifecycle_erase
from rsc.release.lifecycle import expire as lifecycle_expire
from rsc.release.lifecycle.trace import Trace
from rsc.release.lifecycle.trace import trace as trace_subject
from rsc.release.record.reviewers import acting_name
from rsc.release.record.run_origin import RunOrigin
from rsc.runs.folder import RunFolder, list_runs
from rsc.store.dataset import Dataset


@dataclass(frozen=True)
class ExpiredData(Record):
    """Versions that ended, and the proof."""

    data: str
    versions: list[int]
    kek_ids: list[str]
    freed_bytes: int
    proof: dict[str, Any]

    @classmethod
    def of(cls, ended: lifecycle_expire.Expired) -> ExpiredData:
        proof = {
            "opened_before": sum(attempt.opened for attempt in ended.before),
            "tried_after": len(ended.after),
            "opened_after": sum(attempt.opened for attempt in ended.after),
            "told": sorted({attempt.told for attempt in ended.after}),
        }
        return cls(ended.name, list(ended.versions), list(ended.kek_ids), ended.freed_bytes, proof)


@entry
def trace(subject: str, *, as_name: str | None = None) -> Trace:
    """Where a person is: records, data sets, runs, checkpoints and exports. The log gets counts only."""
    house = Custody.open()
    return trace_subject(
        house.workspace,
        _require_subject(subject),
        agent=house.agent,
        audit=house.audit,
        user=acting_name(house, as_name),
    )


@entry
def erase(
    subject: str, *, as_name: str | None = None, though_runs_train: bool = False
) -> lifecycle_erase.Erased:
    """Remove a person's records: new versions without them, old keys destroyed, derived models marked.

    Raises ConfigError while any run trains, unless `though_runs_train`: it may read the person's records
    until its next lease is refused.
    """
    house = Custody.open()
    subject = _require_subject(subject)
    if not though_runs_train:
        require_idle(runs_that_train(house), what="a person's records are erased")
    return lifecycle_erase.erase(
        house.workspace,
        subject,
        agent=house.agent,
        providers=house.providers,
        audit=house.audit,
        clock=house.clock,
        user=acting_name(house, as_name),
    )


@entry
def expire(name: str, *, version: int | None = None, though_runs_train: bool = False) -> ExpiredData:
    """Destroy the keys of a data set, then its bytes, then prove by trying that nothing opens any more.

    Raises ConfigError while a run trains on it, unless `though_runs_train`: such a run ends within minutes,
    when its next lease is refused.
    """
    house = Custody.open()
    if not though_runs_train:
        require_idle(runs_that_train(house, name=name, version=version), what=f"{name} ends")
    return ExpiredData.of(
        lifecycle_expire.expire(
            house.workspace,
            name,
            providers=house.providers,
            audit=house.audit,
            user=house.account.name,
            version=version,
        )
    )


def require_data(name: str, *, version: int | None = None) -> None:
    """Raises ConfigError where there is no such data set, or version of it."""
    Dataset.open(Custody.open().workspace.bulk, name=name, version=version)


def runs_that_train(
    house: Custody, *, name: str | None = None, version: int | None = None
) -> list[RunFolder]:
    """Runs that are being trained now, on any data, or on that data set, as the log says."""
    recorded = house.recorded.runs
    return [
        run
        for run in list_runs(house.workspace.runs)
        if run.holder() is not None
        and (name is None or run.id not in recorded or _reads(recorded[run.id], name, version))
    ]


def require_idle(running: list[RunFolder], *, what: str) -> None:
    """Raises ConfigError with the runs to stop first."""
    if running:
        names = ", ".join(run.id for run in running)
        raise ConfigError(
            f"{names} trains now, and would lose its keys while {what}",
            hint=f"stop it first: rsc runs stop {running[0].id}; or do it all the same with --yes",
        )


def _reads(origin: RunOrigin, name: str, version: int | None) -> bool:
    return any(each == name and version in (None, number) for each, number in origin.all_data())


def _require_subject(subject: str) -> str:
    if not subject.strip():
        raise ConfigError("the subject is empty", hint="an e-mail address, a number or a handle")
    return subject.strip()
