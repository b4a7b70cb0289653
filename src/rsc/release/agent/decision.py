"""May this key be released? A pure function: facts in, verdict out.

The rules, the first that says no decides:

0. the log of the workspace says that the version has this root
1. the data has not ended, and is not past its retention
2. purpose `review`: not rejected. Every other purpose: the review is approved, now, for these bytes
3. the policy names the purpose, and the user where the purpose is to train or evaluate
4. training and evaluation: isolation as the policy asks; `required` means proven from inside and not
   contradicted from outside, with core dumps off and memory private
5. training and evaluation where the policy pins code: the agent measured that code (measured_code.py), and it
   is unchanged since. Such a policy asks for isolation, for only in a sandbox the files are bound read-only

The key of a run's checkpoints follows rule 4 of every data set that the run was trained on, or the run
that it started from; to export a run, rules 0 to 3 of its own data sets. The agent asks once for each.

What the asking process says in its reports is told back to it, but goes into the log as the name of the
finding alone: the log is for ever, and a worker has read personal data.

Not covered: whether the purpose that is named is the true one; a process that was allowed a key can use
it for anything until its lease ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from rsc.clock import parse_timestamp
from rsc.errors import (
    GateRefused,
    IsolationRefused,
    KeyUnavailable,
    ReviewMissing,
    ReviewRejected,
    ReviewVoid,
)
from rsc.release.agent.request import KeyRequest
from rsc.review.approval.verdict import ReviewState
from rsc.review.policy import Policy

LEASE_S = 180.0  # workers prove their isolation again every 60 s; a lease outlives two missed renewals
_ISOLATED_PURPOSES = ("train", "evaluate")
_REFUSALS: dict[str, type[GateRefused]] = {
    kind.__name__: kind
    for kind in (GateRefused, IsolationRefused, KeyUnavailable, ReviewMissing, ReviewRejected, ReviewVoid)
}
_NEEDED_HYGIENE = ("core dumps", "memory is private")
_FINDINGS = ("tcp", "udp", "interfaces", "routes", "vsock", "privileges", "unix sockets")  # launch/probe.py


@dataclass(frozen=True, slots=True)
class DataFacts:
    """A data set version as the agent finds it at the moment of the request."""

    name: str
    version: int
    root_hash: str
    created: datetime
    policy: Policy
    review: ReviewState
    is_recorded: bool
    """Whether the log says that this version has this root."""
    ended_in: int | None = None
    """Record of the log with which it ended; its key is destroyed."""

    @property
    def retained_until(self) -> datetime:
        return self.created + timedelta(seconds=self.policy.retention_s)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a process does not count as isolated."""

    told: str
    logged: str


@dataclass(frozen=True, slots=True)
class Decision:
    is_allowed: bool
    reason: str
    """One sentence."""
    log_reason: str = ""
    """The reason without words of the asking process; empty where it holds none of them."""
    lease_s: float = 0.0
    refusal: str = "GateRefused"
    """Name of the error that fits a denial."""
    hint: str | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the log or of the run's report has to know about an allowed release."""

    def to_error(self) -> GateRefused:
        return _REFUSALS[self.refusal](self.reason, hint=self.hint)


def decide(
    request: KeyRequest,
    *,
    facts: DataFacts | None,
    outside: tuple[str, ...] | None,
    now: datetime,
    code: str | None = None,
) -> Decision:
    """The verdict on a request.

    `facts` is None for a run that was trained on no data set, as the log says. `outside` lists what the agent
    itself found wrong with the asking process's isolation (observe.py); None when it could not look. `code`
    is what the agent measured of the code that the process runs; None for none, and where it changed since.
    """
    if facts is None:
        return Decision(True, f"the key of {request.subject}, which names no data set", lease_s=LEASE_S)
    if request.purpose != "checkpoint":
        denial = _about_data(request, facts, now=now)
        if denial is not None:
            return denial
    problems = list(_isolation_problems(request, outside=outside))
    is_of_worker = request.purpose in (*_ISOLATED_PURPOSES, "checkpoint")
    if facts.policy.code and is_of_worker and code not in facts.policy.code:
        return _other_code(facts, code)
    if facts.policy.isolation == "required" and problems and is_of_worker:
        told = f"{facts.name} requires isolated workers and this one is not"
        denial = _denied(
            "IsolationRefused",
            f"{told}: {problems[0].told}",
            hint="`rsc train` builds the sandbox; `rsc doctor` says what this machine lacks for it",
        )
        return replace(denial, log_reason=f"{told}: {problems[0].logged}")
    return Decision(
        True,
        _reason(request, facts),
        lease_s=_lease_s(request, facts, now=now),
        notes=tuple(_notes(request, facts, problems)),
    )


def _other_code(facts: DataFacts, code: str | None) -> Decision:
    found = "this process runs code that was not measured, or that changed since"
    if code is not None:
        found = f"the code that was measured is {code[:16]}..."
    pinned = ", ".join(f"{each[:16]}..." for each in facts.policy.code)
    return _denied(
        "GateRefused",
        f"the policy of {facts.name} releases keys to the code {pinned} alone: {found}",
        hint="train with that version of RSC (`rsc verify` prints its hash), in a sandbox",
    )


def _about_data(request: KeyRequest, facts: DataFacts, *, now: datetime) -> Decision | None:
    """Rules 0 to 3; None when they hold."""
    data, policy, state = facts.name, facts.policy, facts.review
    if not facts.is_recorded:
        return _denied(
            "ReviewVoid",
            f"the log of this workspace does not know {data} version {facts.version} with the root it has",
            hint="put back the version that was imported; one of another workspace: look at it, then record "
            "it with `rsc audit attest`",
        )
    if facts.ended_in is not None:
        told = f"{data} version {facts.version}: its key was destroyed (record {facts.ended_in} of the log)"
        return _denied("KeyUnavailable", told, hint="import the data again if you may still keep it")
    if now >= facts.retained_until:
        told = f"{data} was kept until {facts.retained_until:%Y-%m-%d}, as its policy says"
        return _denied("KeyUnavailable", told, hint=f"remove it with `rsc data expire {data}`")
    if request.purpose == "review":
        is_rejected = state.state == "rejected"
        return _denied("ReviewRejected", f"{data} is rejected: {state.reason}") if is_rejected else None
    if state.state != "approved":
        return _unapproved(data, state)
    if request.purpose not in policy.purpose:
        return _denied(
            "GateRefused",
            f"the policy of {data} allows {', '.join(policy.purpose)}, not {request.purpose}",
            hint="import it again with a policy that names the purpose, and have that reviewed",
        )
    is_named = "*" in policy.who_may_train or request.user in policy.who_may_train
    if request.purpose in _ISOLATED_PURPOSES and not is_named:
        return _denied(
            "GateRefused", f"the policy of {data} does not let {request.user} {request.purpose} on it"
        )
    return None


def _unapproved(data: str, state: ReviewState) -> Decision:
    kind = {"rejected": "ReviewRejected", "void": "ReviewVoid", "expired": "ReviewVoid"}.get(
        state.state, "ReviewMissing"
    )
    told = f"{data} is {state.state.replace('_', ' ')}: {state.reason}"
    return _denied(kind, told, hint=f"look at it with `rsc data review {data}`")


def _isolation_problems(request: KeyRequest, *, outside: tuple[str, ...] | None) -> Iterator[_Problem]:
    """Why this process does not count as isolated; nothing when it does."""
    if request.isolation is None:
        yield _measured("it sent no isolation report")
    else:
        yield from _broken(request.isolation)
    if outside is None:
        yield _measured("the agent could not look at it from outside")
    else:
        yield from map(_measured, outside)
    hygiene = {finding["name"]: finding for finding in (request.hygiene or {}).get("findings", [])}
    for name in _NEEDED_HYGIENE:
        if not hygiene.get(name, {}).get("is_ok", False):
            yield _Problem(f"{name}: {hygiene.get(name, {}).get('detail', 'not measured')}", name)


def _broken(report: dict[str, Any]) -> Iterator[_Problem]:
    findings = report.get("findings", [])
    for finding in findings:
        if not finding["is_ok"]:
            name = str(finding["name"])
            known = (each for each in _FINDINGS if name == each or name.startswith(f"{each} "))
            yield _Problem(f"{name}: {finding['detail']}", next(known, "a finding of another name"))
    if not findings or report.get("is_ok") is not True:
        yield _measured("its isolation report is not all right")


def _measured(told: str) -> _Problem:
    """In our own words."""
    return _Problem(told, told)


def _lease_s(request: KeyRequest, facts: DataFacts, *, now: datetime) -> float:
    """Never beyond retention, nor beyond the approval that allows it."""
    ends = [facts.retained_until]
    if facts.review.expires is not None and request.purpose not in ("review", "checkpoint"):
        ends.append(parse_timestamp(facts.review.expires))
    if request.purpose == "checkpoint":
        return LEASE_S
    return min(LEASE_S, *((end - now).total_seconds() for end in ends))


def _reason(request: KeyRequest, facts: DataFacts) -> str:
    if request.purpose == "checkpoint":
        return f"{request.subject} trains on {facts.name}"
    return f"{request.purpose} on {facts.name} version {facts.version}: {facts.review.reason}"


def _notes(request: KeyRequest, facts: DataFacts, problems: list[_Problem]) -> Iterator[str]:
    if facts.review.single_person:
        yield "single-person review"
    if request.purpose in _ISOLATED_PURPOSES and problems:
        yield f"not isolated ({facts.policy.isolation}): {problems[0].logged}"


def _denied(refusal: str, reason: str, *, hint: str | None = None) -> Decision:
    return Decision(False, reason, refusal=refusal, hint=hint)
