"""Do the papers say what the log says: where runs come from, and who may review?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsc.clock import parse_timestamp
from rsc.config import Workspace
from rsc.errors import RscError
from rsc.layers import resolve
from rsc.release.agent.measured_code import measure
from rsc.release.record.run_origin import RunOrigin
from rsc.release.verify.checks import GATED, VerifyContext, policy_of
from rsc.release.verify.promise import Breach, Promise, judge
from rsc.store.dataset import Dataset, list_datasets
from rsc.untrusted import UntrustedFolder


def runs_recorded(house: VerifyContext) -> Promise:
    """Every run is in the log, and its run.json and resolved.toml say what the log says."""
    recorded, breaches = house.recorded, []
    folders = [path.parent for path in sorted(house.workspace.runs.glob("*/run.json"))]
    for folder in folders:
        origin = recorded.runs.get(folder.name)
        if origin is None:
            told = "the log does not say what it was trained on; no key of it is released"
            breaches.append(Breach(f"run {folder.name}: {told} (`rsc audit attest`)"))
            continue
        data = origin.data[0].name if origin.data else None
        breaches += [Breach(what, data) for what in _changed(folder, origin)]
    return judge("runs recorded", breaches, told=f"{len(folders)} runs, as the log says they began")


def code_as_pinned(house: VerifyContext) -> Promise:
    """Each key of a worker went to code that was measured, and that the policy names where it pins any.
    The row prints the hash of this RSC, for a policy."""
    pins = pinned_code(house.workspace)
    breaches, num_measured, num_all = [], 0, 0
    for entry in house.audit.entries() if pins else ():
        if entry["kind"] != "key_released" or entry.get("pid") is None or entry["purpose"] not in GATED:
            continue
        num_all, num_measured = num_all + 1, num_measured + ("code" in entry)
        pinned = pins.get((str(entry.get("data")), int(entry.get("version") or 0)), ())
        if pinned and entry.get("code") not in pinned:
            what = f"record {entry['index']}: a key of {entry['data']} went to code"
            breaches.append(
                Breach(f"{what} that its policy does not name", entry["data"], parse_timestamp(entry["time"]))
            )
    counted = (
        f"{num_measured} of {num_all} keys of workers to measured code" if pins else "no policy pins code"
    )
    told = f"{counted}; this RSC is {measure().source}"
    return judge("code as pinned", breaches, told=told)


def pinned_code(workspace: Workspace) -> dict[tuple[str, int], tuple[str, ...]]:
    """By data set version; of those alone whose policy pins code."""
    found = {}
    for name, numbers in list_datasets(workspace.bulk):
        for number in numbers:
            policy = policy_of(Dataset.open(workspace.bulk, name=name, version=number))
            if policy.code:
                found[name, number] = policy.code
    return found


def reviewers_enrolled(house: VerifyContext) -> Promise:
    """The chain of enrolments holds, and each verdict was given from the account of its reviewer."""
    recorded = house.recorded
    breaches = [
        Breach(f"record {index} of the log enrols a reviewer whom nobody enrolled has countersigned")
        for index in recorded.refused_enrolments
    ]
    owner = house.workspace.root.stat().st_uid
    first = recorded.first_reviewer
    if first is not None and first.uid != owner:
        breaches.append(Breach(f"the first reviewer, {first.name}, is not the workspace's owner"))
    for root, verdicts in recorded.verdicts.items():
        data = recorded.places.get(root, (None, 0))[0]
        for name, said in verdicts.items():
            reviewer = recorded.reviewer(name)
            if (
                said.value == "approve"
                and said.uid is not None
                and (reviewer is None or reviewer.uid != said.uid)
            ):
                told = f"record {said.index} of the log: {name} approved from account {said.uid}"
                breaches.append(Breach(f"{told}, which {name} is not enrolled for", data))
    told = f"{len(recorded.reviewers)} reviewers, {recorded.persons()} accounts"
    return judge("reviewers enrolled", breaches, told=told)


def _changed(folder: Path, origin: RunOrigin) -> Iterator[str]:
    try:
        origin.require_papers(_lineage(folder))
    except RscError as error:
        yield error.message
    try:
        is_same = resolve(str(folder / "resolved.toml")).digest == origin.recipe_sha256
    except RscError:
        is_same = False
    if not is_same:
        yield f"resolved.toml of {folder.name} is not the recipe that record {origin.index} of the log names"


def _lineage(folder: Path) -> dict[str, Any]:
    """Empty for a run.json that holds none."""
    try:
        lineage = json.loads(UntrustedFolder(folder).read("run.json"))["lineage"]
    except (OSError, RscError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return lineage if isinstance(lineage, dict) else {}
