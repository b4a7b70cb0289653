"""The key agent: decide, log, hand over. The only code that opens an envelope for somebody else.

    request -> the log (log_record.py) -> facts (review, policy, run) -> decide (decision.py)
            -> key opened -> logged -> handed over

In process (`release`) for commands that a person runs, over a unix socket (server.py) for workers in the
sandbox. Every answer, yes or no, is in the log before the asker has it.

Not covered: root and the agent's own user, who can read the key folder itself; a key that was handed
over, until its lease ends (server.py kills the holder of an expired lease).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rsc.accounts import Account, this_account
from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused, IntegrityError, RscError
from rsc.keys.envelope import Envelope, KeyProvider, data_key_context, open_envelope, run_key_context
from rsc.keys.secret import SecretKey
from rsc.release.agent.decision import DataFacts, Decision, decide
from rsc.release.agent.denials import Denials
from rsc.release.agent.facts_cache import FactsCache
from rsc.release.agent.measured_code import MeasuredCode
from rsc.release.agent.request import KeyRequest
from rsc.release.record.log_record import LiveRecord, Recorded
from rsc.release.record.origin_facts import facts_of
from rsc.release.record.run_origin import require_origin
from rsc.store.dataset import list_datasets
from rsc.untrusted import UntrustedFolder

Record = dict[str, Any]
"""Of the audit log."""
_UNKNOWN = "unknown"
_MAX_REASON = 500  # letters of a sentence in the log, whose records are bounded


@dataclass(frozen=True)
class Grant:
    """A key on its way to whoever asked. The receiver closes it."""

    key: SecretKey
    decision: Decision
    number: int
    """Index of the release in the audit log; also the number of the lease."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for what."""

    request: KeyRequest
    outside: tuple[str, ...] | None
    """What observe.py found wrong with the asking process; None when nobody could look."""
    holder: Mapping[str, Any]
    """What the log is to say about the process."""
    refusal: GateRefused | None = None
    """Why it may not even ask; the denial is logged like any other."""


@dataclass(frozen=True)
class _Opened:
    """A key that may be released once that is in the log."""

    key: SecretKey
    decision: Decision
    kek_id: str
    log_facts: dict[str, Any]


@dataclass(frozen=True)
class _Denied:
    error: RscError
    log_reason: str
    """Without words of the asking process."""


@dataclass(frozen=True)
class _Asked:
    """What a request is about, found in the workspace."""

    envelope: Envelope
    context: bytes
    facts: tuple[DataFacts, ...]
    """Of every data set whose rules count; none for a run that trains on no data set."""
    log_facts: dict[str, Any]


class KeyAgent:
    def __init__(
        self,
        workspace: Workspace,
        *,
        providers: Mapping[str, KeyProvider],
        audit: AuditLog,
        clock: Clock,
        account: Account | None = None,
        code: MeasuredCode | None = None,
    ) -> None:
        """`providers` by the name that envelopes carry; `account` is who asks in this process; `code` what
        workers run that ask over a socket."""
        self._code = code
        self._workspace = workspace
        self._providers = providers
        self._audit = audit
        self._clock = clock
        self._account = account or this_account()
        self._record = LiveRecord(audit, witness=workspace.witness)
        self._memory = FactsCache(workspace)
        self._denials = Denials()

    def release(self, request: KeyRequest) -> SecretKey:
        """The key, for this process. Raises GateRefused (exit code 3) with one sentence when it is denied."""
        request = replace(request, user=self._account.name, uid=self._account.uid)
        (answer,) = self.grant([Asking(request, None, {})])
        if isinstance(answer, RscError):
            raise answer
        return answer.key

    @property
    def is_immediate(self) -> bool:
        """Whether opening an envelope waits for nothing: no network, no token, no memory-hard function."""
        return all(provider.is_immediate for provider in self._providers.values())

    def grant(self, asked: Sequence[Asking]) -> list[Grant | RscError]:
        """Decide, open and log, for everybody who asks at once: one durable commit of the log for all.

        A refusal is an answer, in its place. Raises OSError, ConfigError or IntegrityError when the log
        takes no record or cannot be believed: then nobody gets a key.
        """
        recorded = self._record_now()
        found = [self._decide_and_open(one, recorded=recorded) for one in asked]
        try:
            records = [
                record
                for one, answer in zip(asked, found, strict=True)
                if self._has_to_be_written(
                    record := self._told(one.request, answer, holder=one.holder), is_ours=not one.holder
                )
            ]
            first = self._audit.append_many(records) if records else 0
        except BaseException:
            for answer in found:
                if isinstance(answer, _Opened):
                    answer.key.close()
            raise
        numbers = (n for n, record in enumerate(records, start=first) if record["kind"] == "key_released")
        return [
            Grant(answer.key, answer.decision, next(numbers)) if isinstance(answer, _Opened) else answer.error
            for answer in found
        ]

    def _has_to_be_written(self, record: Record, *, is_ours: bool) -> bool:
        """A worker's refusals that repeat are counted; what a person asks for is written each time."""
        is_denied = record["kind"] != "key_released"
        return is_ours or not is_denied or self._denials.is_first(record, now_s=self._clock.monotonic_s())

    def log_repeated(self, *, all_of_it: bool = False) -> None:
        """Write how often refusals repeated, once a minute or at the end."""
        repeated = self._denials.take(now_s=self._clock.monotonic_s(), all_of_it=all_of_it)
        if repeated:
            self._audit.append_many(repeated)

    def renew(self, request: KeyRequest, *, outside: tuple[str, ...] | None) -> Decision:
        """Decide again on a lease that runs. Only a denial is logged. Raises GateRefused then."""
        answer = self._decide_and_open(Asking(request, outside, {}), recorded=self._record_now())
        if isinstance(answer, _Denied):
            about = _about(self._nameable(request))
            record = {"kind": "lease_denied", **about, "reason": answer.log_reason[:_MAX_REASON]}
            if self._has_to_be_written(record, is_ours=False):
                self._audit.append_many([record])
            raise answer.error
        answer.key.close()  # it was opened because a key destroyed meanwhile ends the lease
        return answer.decision

    def log_ended(self, leases: Iterable[tuple[int, KeyRequest, str]]) -> None:
        """Log that leases are over: (number of the release, its request, `returned`, `gone` or `expired`)."""
        self._audit.append_many(
            {"kind": "lease_ended", **_about(request), "release": number, "how": how}
            for number, request, how in leases
        )

    def _record_now(self) -> Recorded | GateRefused:
        """What the log says; the refusal of everything where its witness contradicts it."""
        try:
            return self._record.now()
        except GateRefused as refusal:
            return refusal

    def _decide_and_open(self, asking: Asking, *, recorded: Recorded | GateRefused) -> _Opened | _Denied:
        request = asking.request
        refusal = recorded if isinstance(recorded, GateRefused) else asking.refusal
        if isinstance(recorded, GateRefused) or refusal is not None:
            assert refusal is not None, "one of both"
            return _Denied(refusal, refusal.message)
        try:
            asked = self._find(request, recorded=recorded)
            decision = self._decide(asking, asked.facts)
            if not decision.is_allowed:
                return _Denied(decision.to_error(), decision.log_reason or decision.reason)
            return _Opened(self._open(asked), decision, asked.envelope.kek_id, asked.log_facts)
        except RscError as error:
            is_known = self._nameable(request) == request
            return _Denied(error, error.message if is_known else "what was asked for is not here")
        except OSError as error:
            told = f"the key agent cannot read its workspace: {error.strerror}"
        except Exception as error:
            # reports come from the asking process; what cannot be judged is refused, for this one alone
            told = f"the request cannot be judged: {type(error).__name__} in its reports or the run's lineage"
        return _Denied(GateRefused(told), told)

    def _decide(self, asking: Asking, facts: Sequence[DataFacts]) -> Decision:
        """One no is a no; of several that say yes the first, with what is to be noted of all."""
        about: Sequence[DataFacts | None] = facts or [None]
        now = self._clock.now()
        code = self._code.source if self._code is not None and self._code.is_unchanged() else None
        decisions = [
            decide(asking.request, facts=each, outside=asking.outside, now=now, code=code) for each in about
        ]
        for decision in decisions:
            if not decision.is_allowed:
                return decision
        notes = dict.fromkeys(note for decision in decisions for note in decision.notes)
        return replace(decisions[0], notes=tuple(notes), lease_s=min(each.lease_s for each in decisions))

    def _told(self, request: KeyRequest, answer: _Opened | _Denied, *, holder: Mapping[str, Any]) -> Record:
        """The record of an answer."""
        if isinstance(answer, _Denied):
            about = _about(self._nameable(request))
            return {"kind": "key_denied", **about, "reason": answer.log_reason[:_MAX_REASON]}
        decision = answer.decision
        return {
            "kind": "key_released",
            **_about(request),
            "reason": decision.reason,
            "lease_s": decision.lease_s,
            "notes": list(decision.notes),
            "kek_id": answer.kek_id,
            **answer.log_facts,
            **(self._code.to_record() if self._code is not None else {}),
            **holder,
        }

    def _nameable(self, request: KeyRequest) -> KeyRequest:
        """Without names that nothing here bears: they could say anything, and the log is for ever."""
        versions: Mapping[str, Sequence[int]] = {}
        runs: set[str] = set()
        with contextlib.suppress(RscError, OSError):
            versions = dict(list_datasets(self._workspace.bulk))
            runs = {path.name for path in self._workspace.runs.iterdir()}
        is_version = request.version in versions.get(request.data or "", ())
        return replace(
            request,
            data=request.data if request.data in (None, *versions) else _UNKNOWN,
            version=request.version if is_version else None,
            run=request.run if request.run in (None, *runs) else _UNKNOWN,
        )

    def _find(self, request: KeyRequest, *, recorded: Recorded) -> _Asked:
        if request.is_for_run:
            return self._find_run(request, recorded=recorded)
        name, now = str(request.data), self._clock.now()
        found = self._memory.find(name, version=request.version, recorded=recorded, now=now)
        return _Asked(
            found.envelope,
            data_key_context(found.dataset.name),
            (found.facts,),
            {"version": found.dataset.version, "root_hash": found.dataset.root_hash},
        )

    def _find_run(self, request: KeyRequest, *, recorded: Recorded) -> _Asked:
        run, now = str(request.run), self._clock.now()
        origin = require_origin(recorded.runs, run)
        try:
            envelope = Envelope.from_json(UntrustedFolder(self._workspace.runs / run).read("key.json"))
        except FileNotFoundError:
            raise IntegrityError(f"run {run} has no key.json", outcome="no_key") from None
        versions = origin.own_data() if request.purpose == "export" else origin.all_data()
        facts = [
            facts_of(
                version,
                root_hash=origin.root_of(version),
                workspace=self._workspace,
                memory=self._memory,
                recorded=recorded,
                now=now,
            )
            for version in versions
        ]
        if request.data is not None and (request.data, request.version) not in versions:
            found = self._memory.find(request.data, version=request.version, recorded=recorded, now=now)
            facts.append(found.facts)
        return _Asked(envelope, run_key_context(run), tuple(facts), {})

    def _open(self, asked: _Asked) -> SecretKey:
        provider = self._providers.get(asked.envelope.provider)
        if provider is None:
            known = ", ".join(self._providers) or "none"
            raise ConfigError(
                f"the key provider {asked.envelope.provider!r} is not configured here (configured: {known})",
                hint="docs/keys.md says how to configure one",
            )
        return open_envelope(provider, asked.envelope, context=asked.context)


def _about(request: KeyRequest) -> dict[str, Any]:
    names = ("data", "version", "run", "purpose", "user", "uid")
    return {name: value for name in names if (value := getattr(request, name)) is not None}
