"""Bring a workspace of an older RSC over, in one logged step: what its log does not say yet.

Before runs, reviewers and accounts were recorded, `run.json` and the folder of public keys were believed. An
attestation writes into the log, under the name of the person who ran it, what those files say today:

    reviewers   signing keys in `identities` that open without a passphrase, as keys of this account
    versions    those of a shared location that another workspace brought in, with the verdicts on them that
                were signed by somebody who is enrolled here
    runs        what run.json says that they were trained on, where the log knows those versions

From then on the log decides. What it says already is never changed.

Not covered: whether the files say the truth. Whoever attests has looked at them; the log says who that was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError, GateRefused, RscError
from rsc.layers import resolve
from rsc.release.agent.custody import Custody
from rsc.release.agent.facts import ReviewFiles
from rsc.release.record.log_record import Recorded
from rsc.release.record.reviewers import enrol
from rsc.release.record.run_origin import ATTESTED, DataUsed, RunOrigin, used_before, used_in
from rsc.store.dataset import Dataset, list_datasets
from rsc.untrusted import UntrustedFolder


@dataclass(frozen=True, slots=True)
class Attested:
    reviewers: tuple[str, ...]
    versions: tuple[tuple[str, int], ...]
    runs: tuple[str, ...]
    refused: tuple[str, ...]
    """What could not be recorded, and why."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def attest(custody: Custody) -> Attested:
    """Record all that the log does not say. Raises GateRefused for anybody but the workspace's owner."""
    if custody.workspace.root.stat().st_uid != custody.account.uid:
        raise GateRefused("only the owner of a workspace can attest what lies in it")
    refused: list[str] = []
    reviewers = tuple(_enrol_all(custody, refused))
    versions = tuple(_record_versions(custody))
    runs = tuple(_record_runs(custody, refused))
    return Attested(reviewers, versions, runs, tuple(refused))


def _enrol_all(custody: Custody, refused: list[str]) -> Iterator[str]:
    """The key under this account's own name first: it becomes the root of trust where there is none."""
    names = {path.stem for path in custody.workspace.identities.glob("*.key")}
    for name in sorted(names, key=lambda name: (name != custody.account.name, name)):
        if custody.recorded.reviewer(name) is not None:
            continue
        try:
            yield enrol(custody, passphrase=None, name=name).name
        except RscError as error:
            refused.append(f"reviewer {name}: {error.message}")


def _record_versions(custody: Custody) -> Iterator[tuple[str, int]]:
    for name, numbers in list_datasets(custody.workspace.bulk):
        for number in numbers:
            if (name, number) in custody.recorded.versions:
                continue
            dataset = Dataset.open(custody.workspace.bulk, name=name, version=number)
            custody.audit.append(
                "version_attested",
                data=name,
                version=number,
                root_hash=dataset.root_hash,
                user=custody.account.name,
            )
            _record_verdicts(custody, dataset)
            yield name, number


def _record_verdicts(custody: Custody, dataset: Dataset) -> None:
    """Those on a version of another workspace, where somebody who is enrolled here signed them."""
    recorded = custody.recorded
    files = ReviewFiles.read(dataset, workspace=custody.workspace)
    custody.audit.append_many(
        {
            "kind": signed.verdict,
            "data": dataset.name,
            "version": dataset.version,
            "root_hash": dataset.root_hash,
            "approver": signed.approver,
            "public_key": signed.public_key,
            "uid": recorded.reviewers[signed.public_key].uid,
            "by_uid": custody.account.uid,
            "attested": True,
        }
        for signed in files.counted(recorded)
        if signed.root_hash == dataset.root_hash
    )


def _record_runs(custody: Custody, refused: list[str]) -> Iterator[str]:
    recorded = custody.recorded
    for path in sorted(custody.workspace.runs.glob("*/run.json")):
        run = path.parent.name
        if run in recorded.runs:
            continue
        try:
            origin = _origin_of(path, recorded=recorded)
        except RscError as error:
            refused.append(f"run {run}: {error.message}")
            continue
        custody.audit.append(ATTESTED, **origin.to_record(), user=custody.account.name)
        yield run


def _origin_of(path: Path, *, recorded: Recorded) -> RunOrigin:
    """From run.json and resolved.toml. Raises ConfigError where they name no data, or data that the log does
    not know with that root."""
    run = path.parent.name
    try:
        record = json.loads(UntrustedFolder(path.parent).read("run.json"))
        lineage, recipe = record["lineage"], str(record["recipe"])
        data, inherited = tuple(used_in(lineage)), tuple(used_before(lineage, through="parent"))
        exported = tuple(used_before(lineage, through="export_of"))
        said = str(lineage.get("recipe_sha256", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError("its run.json does not say what it was trained on") from None
    if not data:
        raise ConfigError("its run.json names no data set")
    for each in (*data, *inherited, *exported):
        _require_known(each, recorded=recorded)
    if resolve(str(path.parent / "resolved.toml")).digest != said:
        raise ConfigError("its resolved.toml is not the recipe that its run.json names")
    parent = lineage.get("parent", {})
    return RunOrigin(
        run, recipe, said, data, inherited, exported, parent.get("run") or parent.get("open_weights")
    )


def _require_known(used: DataUsed, *, recorded: Recorded) -> None:
    root = recorded.versions.get(used.place)
    if root is None or root.value != used.root_hash:
        raise ConfigError(
            f"the log does not know {used.name} version {used.version} with the root that run.json names"
        )
