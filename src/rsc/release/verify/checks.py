"""The checks behind `rsc verify`. Each looks at the workspace anew and believes nothing it can measure."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from rsc.audit.log import AuditLog
from rsc.audit.witness import Witness
from rsc.clock import parse_timestamp
from rsc.config import Workspace
from rsc.errors import RscError
from rsc.keys.providers.local import returned_keys
from rsc.release.agent.facts import ReviewFiles, data_facts
from rsc.release.agent.observe import meant_sockets, observe
from rsc.release.lifecycle.kek_index import Providers, active_keks
from rsc.release.lifecycle.retention import overdue
from rsc.release.lifecycle.run_keys import overdue_run_keys
from rsc.release.lifecycle.unused_keys import overdue_unused
from rsc.release.record.log_record import Recorded, replay
from rsc.release.verify.log_times import LogTimes
from rsc.release.verify.plaintext_search import plaintext_files
from rsc.release.verify.promise import Breach, Promise, judge, unknown
from rsc.review.approval.verdict import ReviewState, person_of
from rsc.review.policy import Policy, parse_policy
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.verify import VerifyPart

_BOOT_ROUNDING_S = 1.0  # /proc/stat tells the time of boot in whole seconds
GATED = ("train", "evaluate", "export")  # purposes that need an approval


Ended: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]


@dataclass(frozen=True)
class VerifyContext:
    """What the checks look at."""

    workspace: Workspace
    providers: Providers
    audit: AuditLog
    now: datetime
    read: VerifyPart = field(default_factory=VerifyPart)
    """Of the shards, where every byte is read."""
    planted: tuple[str, ...] = ()
    """Values that somebody put into a source to see where they turn up."""

    log_times: LogTimes = field(default_factory=LogTimes)
    """Filled while the log is read."""

    @cached_property
    def recorded(self) -> Recorded:
        """What the log says: read once for all checks, for a million records take 4 CPU seconds."""
        return replay(self.log_times.watching(self.audit.entries()))

    @cached_property
    def leases(self) -> tuple[list[Mapping[str, Any]], list[Ended]]:
        """Releases over the socket whose lease did not end and whose process still lives; and those whose
        lease the agent ended, because its time was over or its holder gone, with that record."""
        return _leases(self.audit)


def no_plaintext(house: VerifyContext) -> Promise:
    looked, breaches = plaintext_files(house.workspace)
    return judge("no plaintext at rest", breaches, told=f"0 of {looked} files")


def reviews_valid(house: VerifyContext) -> Promise:
    """Every review is evaluated anew: signatures, hashes, expiry, the files as they are now, and no verdict
    that the log tells of is lost."""
    recorded = house.recorded
    breaches: list[Breach] = []
    states: dict[str, int] = defaultdict(int)
    for dataset in _versions(house.workspace):
        what = f"{dataset.name} version {dataset.version}"
        try:
            state = data_facts(dataset, workspace=house.workspace, recorded=recorded, now=house.now).review
        except RscError as error:
            breaches.append(Breach(error.message, data=dataset.name, since=_review_changed(house, dataset)))
            continue
        if dataset.is_ended and state.state == "expired":
            states["ended"] += 1
            continue
        states[state.state] += 1
        if state.state == "void":
            changed = _review_changed(house, dataset)
            breaches.append(Breach(f"{what}: {state.reason}", data=dataset.name, since=changed))
        breaches += [
            Breach(f"{what}: {lost}", data=dataset.name, since=_review_changed(house, dataset))
            for lost in _lost_verdicts(house, dataset, state, recorded=recorded)
        ]
    told = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(states.items()))
    return judge("reviews valid", breaches, told=told or "no data yet")


def keys_within_retention(house: VerifyContext) -> Promise:
    late = overdue(house.workspace, providers=house.providers, now=house.now)
    breaches = [
        Breach(
            f"key {item.kek_id} of {item.name} version {item.version} should be gone", item.name, item.since
        )
        for item in late
    ]
    breaches += [
        Breach(f"key {item.kek_id} of checkpoints should be gone", since=item.since)
        for item in overdue_run_keys(house.workspace, providers=house.providers, now=house.now)
    ]
    breaches += [
        Breach(f"key {key.kek_id}, which no version is under, should be gone", since=key.since)
        for key in overdue_unused(house.workspace, providers=house.providers, now=house.now)
    ]
    breaches += [
        Breach(f"the file of key {kek_id} is back beside the mark that it was destroyed: remove it")
        for kek_id in returned_keys(house.workspace.keys)
    ]
    active = active_keks(house.providers)
    breaches += [
        Breach(f"key {kek_id} is back; record {said.index} of the log says that it was destroyed")
        for (provider, kek_id), said in house.recorded.destroyed.items()
        if (provider, kek_id) in active
    ]
    return judge("keys within retention", breaches, told=f"keys older than policy: 0 (of {len(active)})")


def log_intact(house: VerifyContext) -> Promise:
    """Every record, hash and signature; and the newest view of the witness where one is configured."""
    witness = house.workspace.witness
    known = Witness(witness).known() if witness is not None else {}
    report = house.audit.verify(known=known)
    since = parse_timestamp(report.last_time) if report.last_time else None
    breaches = [Breach(f"{problem.where}: {problem.what}", since=since) for problem in report.problems]
    if witness is not None and not known:
        breaches.append(Breach(f"the witness {witness} of config.toml holds no checkpoint"))
    public = house.workspace.audit / "log.vkey"
    if not public.is_file() or public.read_text().strip() != house.audit.verifier.to_text():
        breaches.append(
            Breach("log.vkey is not the public half of log.key: who was given it verifies nothing")
        )
    return judge("log intact", breaches, told=f"{report.size} records under {report.origin}")


def clock_not_behind_log(house: VerifyContext) -> Promise:
    _ = house.recorded  # reads the log
    return house.log_times.judged(house.now)


def no_release_without_approval(house: VerifyContext) -> Promise:
    """Replay the log: at each release of a gated purpose, enough people had approved these very bytes."""
    approvers: dict[str, set[str | int]] = defaultdict(set)
    policies = {
        house.recorded.root_of((dataset.name, dataset.version), root_hash=dataset.root_hash): policy_of(
            dataset
        )
        for dataset in _versions(house.workspace)
    }
    breaches, releases = [], 0
    for entry in house.audit.entries():
        root = entry.get("root_hash", "")
        if entry["kind"] == "approve":
            approvers[root].add(_person(house, entry, policy=policies.get(root)))
        elif entry["kind"] == "reject":
            approvers[root].clear()
        elif entry["kind"] == "review_carried":
            approvers[root] |= approvers[entry["from_root_hash"]]
        elif entry["kind"] == "key_released" and entry["purpose"] in GATED and "data" in entry:
            releases += 1
            needed = _needed(policies.get(root))
            if len(approvers[root]) < needed:
                what = f"record {entry['index']}: {entry['user']} got the key of {entry['data']}"
                told = f"{what} to {entry['purpose']} with {len(approvers[root])} of {needed} approvals"
                breaches.append(Breach(told, entry["data"], parse_timestamp(entry["time"])))
    return judge("no release without approval", breaches, told=f"{releases} releases, each approved before")


def _person(house: VerifyContext, entry: Mapping[str, Any], *, policy: Policy | None) -> str | int:
    """Who approved; the account, which of older records is that of the reviewer today."""
    reviewer = house.recorded.reviewer(entry["approver"])
    if reviewer is None:
        return str(entry["approver"])
    return person_of(reviewer, policy=policy or Policy())


def running_jobs_isolated(house: VerifyContext) -> Promise:
    """Look at every process that holds a key right now, from outside."""
    levels = {
        (dataset.name, dataset.version): policy_of(dataset).isolation
        for dataset in _versions(house.workspace)
    }
    found, _ = house.leases
    breaches, open_by_policy = [], 0
    for entry in found:
        problems = observe(entry["pid"], allowed_sockets=_agent_socket(entry))
        if problems == ():
            continue
        told = "cannot be looked at" if problems is None else problems[0]
        if levels.get((entry["data"], entry["version"])) == "required":
            what = f"process {entry['pid']} holds a key of {entry['data']} and is not isolated: {told}"
            breaches.append(Breach(what, entry["data"], parse_timestamp(entry["time"])))
        else:
            open_by_policy += 1
    weaker = f", {open_by_policy} of them open (their policies say best-effort)" if open_by_policy else ""
    return judge("running jobs isolated", breaches, told=f"{len(found)} processes hold keys{weaker}")


def files_private(house: VerifyContext) -> Promise:
    """Nobody but the owner can read keys, or write anything that decides."""
    root = house.workspace.root
    secret = [*_below(house.workspace.keys), root / "audit/log.key", *root.glob("identities/*.key")]
    breaches = [_too_open(path, root, 0o077) for path in secret if not path.is_dir()]
    parts = (house.workspace.keys, house.workspace.audit, house.workspace.identities, house.workspace.data)
    deciding = [root, root / "config.toml", *parts, *(path for part in parts for path in _below(part))]
    breaches += [_too_open(path, root, 0o022) for path in deciding if path not in secret or path.is_dir()]
    breaches += [
        Breach(f"{path.relative_to(root.parent)} is a link: what it leads to can be changed from elsewhere")
        for part in (house.workspace.keys, house.workspace.audit, house.workspace.identities)
        for path in _below(part)
        if path.is_symlink()
    ]
    found = [breach for breach in breaches if breach is not None]
    num_secret = sum(not path.is_dir() for path in secret)
    return judge("files private", found, told=f"{num_secret} secret files, owner only")


def nothing_phones_out(house: VerifyContext) -> Promise:
    """Import every light module in a process that reports each attempt to connect or to resolve a name."""
    done = subprocess.run(
        [sys.executable, "-c", _LISTEN_CODE],
        capture_output=True,
        text=True,
        env={**os.environ, "RSC_HOME": str(house.workspace.root)},
    )
    if done.returncode != 0:
        return unknown(
            "nothing phones out", "the check did not run: " + (done.stderr.strip().splitlines() or ["?"])[-1]
        )
    told = json.loads(done.stdout)
    breaches = [Breach(f"{attempt} while importing") for attempt in told["attempts"]]
    return judge(
        "nothing phones out", breaches, told=f"{told['modules']} modules imported, no attempt to connect"
    )


_LISTEN_CODE = """
import importlib, json, pkgutil, sys
attempts = []
WATCHED = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
def hear(event, arguments):
    if event in WATCHED:
        attempts.append(f"{event} {arguments[1:2] if event == 'socket.connect' else arguments[:1]}")
sys.addaudithook(hear)
import rsc
modules = 0
for room in ("audit", "review", "store", "ingest", "release", "cluster"):
    package = importlib.import_module(f"rsc.{room}")
    for found in pkgutil.walk_packages(package.__path__, f"rsc.{room}."):
        importlib.import_module(found.name)
        modules += 1
print(json.dumps({"modules": modules, "attempts": attempts}))
"""


def _versions(workspace: Workspace) -> Iterator[Dataset]:
    for name, versions in list_datasets(workspace.bulk):
        for number in versions:
            yield Dataset.open(workspace.bulk, name=name, version=number)


def policy_of(dataset: Dataset) -> Policy:
    """The policy as it is now; the strictest one where it cannot be read."""
    try:
        return parse_policy(dataset.read_review("policy.toml") or b"")
    except RscError:
        return Policy(isolation="required")


def _lost_verdicts(
    house: VerifyContext, dataset: Dataset, review: ReviewState, *, recorded: Recorded
) -> Iterator[str]:
    """Verdicts of the log that no file carries now (every rejection, and approvals that are missed), and
    verdicts in files that the log does not know: it was cut back, or somebody signed around the commands."""
    files = ReviewFiles.read(dataset, workspace=house.workspace)
    line, logged = recorded.line(dataset.root_hash), recorded.verdicts_on(dataset.root_hash)
    carried = {(a.approver, a.verdict) for a in files.counted(recorded) if a.root_hash in line}
    for approver, said in logged.items():
        is_missed = said.value == "reject" or review.state == "in_review"
        if is_missed and (approver, said.value) not in carried:
            yield f"{approver}'s {said.value} (record {said.index} of the log) is gone, or of an unknown key"
    if house.workspace.bulk == house.workspace.data:  # others that share a place have their own logs
        yield from (
            f"the log knows no {what} by {name}" for name, what in sorted(carried) if name not in logged
        )


def _needed(policy: Policy | None) -> int:
    return policy.required_approvers if policy else 1


def _review_changed(house: VerifyContext, dataset: Dataset) -> datetime | None:
    """None where an object store has it: its times are when a copy arrived."""
    if not isinstance(house.workspace.bulk, Path):
        return None
    folder = house.workspace.bulk / dataset.folder / "review"
    changed = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
    return datetime.fromtimestamp(max(changed), UTC) if changed else None


def _leases(audit: AuditLog) -> tuple[list[Mapping[str, Any]], list[Ended]]:
    open_releases: dict[int, Mapping[str, Any]] = {}
    ended: list[Ended] = []
    for entry in audit.entries():
        if entry["kind"] == "key_released" and entry.get("pid") is not None and entry.get("data"):
            open_releases[entry["index"]] = entry
        elif entry["kind"] == "lease_ended":
            release = open_releases.pop(entry["release"], None)
            if release is not None and str(entry.get("how", "")).startswith(("expired", "gone")):
                ended.append((release, entry))
    return [release for release in open_releases.values() if lives_since(release)], ended


def lives_since(release: Mapping[str, Any]) -> bool:
    """Whether the process that got the key is there: this one, not a later one of its number."""
    return _started(release["pid"]) <= parse_timestamp(release["time"]).timestamp() + _BOOT_ROUNDING_S


def _started(pid: int) -> float:
    """When a process began, in seconds of the epoch; infinite for one that is gone (proc(5), field 22)."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        booted = next(
            line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
        )
    except OSError:
        return float("inf")
    return int(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def _agent_socket(entry: Mapping[str, Any]) -> tuple[Path, ...]:
    path = Path(entry.get("socket", ""))
    return meant_sockets(path) if path.is_absolute() else ()


def _below(folder: Path) -> list[Path]:
    """Files and folders."""
    return sorted(folder.rglob("*"))


def _too_open(path: Path, root: Path, forbidden: int) -> Breach | None:
    """A link is judged by what it leads to."""
    try:
        status, owner = path.stat(), root.stat().st_uid
    except FileNotFoundError:
        return None
    name = path.relative_to(root.parent)
    changed = datetime.fromtimestamp(status.st_ctime, UTC)
    if status.st_uid not in (owner, 0):
        return Breach(f"{name} belongs to another user (number {status.st_uid})", since=changed)
    if not status.st_mode & forbidden:
        return None
    return Breach(f"{name} has mode {stat.S_IMODE(status.st_mode):04o}", since=changed)
