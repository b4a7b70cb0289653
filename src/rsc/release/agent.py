"""The key agent: decide, log, hand over. The only code that opens an envelope for somebody else.

    request -> facts (review, policy, run) -> decide (decision.py) -> key opened -> logged -> handed over

In process (`release`) for commands that a person runs, over a unix socket (server.py) for workers in the
sandbox. Every answer, yes or no, is in the log before the asker has it.

Not covered: root and the agent's own user, who can read the key folder itself; a key that was handed
over, until its lease ends (server.py kills the holder of an expired lease).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError, RscError
from rsc.release.decision import DataFacts, Decision, decide
from rsc.release.facts import Memory, data_facts, run_record
from rsc.release.request import KeyRequest
from rsc.store.dataset import Dataset
from rsc.store.keys import Envelope, KeyProvider, data_key_context, open_envelope, run_key_context
from rsc.store.secret import SecretKey


@dataclass(frozen=True)
class Grant:
    """A key on its way to whoever asked. The receiver closes it."""

    key: SecretKey
    decision: Decision
    number: int
    """Index of the release in the audit log; also the number of the lease."""


@dataclass(frozen=True)
class _Asked:
    """What a request is about, found in the workspace."""

    envelope: Envelope
    context: bytes
    facts: DataFacts | None
    log_facts: dict[str, Any]


class KeyAgent:
    def __init__(
        self, workspace: Workspace, *, providers: Mapping[str, KeyProvider], audit: AuditLog, clock: Clock
    ) -> None:
        """`providers` by the name that envelopes carry."""
        self._workspace = workspace
        self._providers = providers
        self._audit = audit
        self._clock = clock
        self._memory = Memory()

    def release(self, request: KeyRequest) -> SecretKey:
        """The key, for this process. Raises GateRefused (exit code 3) with one sentence when it is denied."""
        return self.grant(request, outside=None).key

    def grant(
        self, request: KeyRequest, *, outside: tuple[str, ...] | None, holder: Mapping[str, Any] | None = None
    ) -> Grant:
        """Decide, open and log. `outside` is what observe.py found wrong with the asking process, `holder`
        what the log is to say about it."""
        try:
            asked = self._find(request)
            decision = decide(request, facts=asked.facts, outside=outside, now=self._clock.now())
            if not decision.is_allowed:
                raise decision.to_error()
            key = self._open(asked)
        except RscError as error:
            self._log("key_denied", request, reason=error.message)
            raise
        try:
            number = self._log(
                "key_released",
                request,
                reason=decision.reason,
                lease_s=decision.lease_s,
                notes=list(decision.notes),
                kek_id=asked.envelope.kek_id,
                **asked.log_facts,
                **(holder or {}),
            )
        except BaseException:
            key.close()
            raise
        return Grant(key, decision, number)

    def renew(self, request: KeyRequest, *, outside: tuple[str, ...] | None) -> Decision:
        """Decide again on a lease that runs. Only a denial is logged. Raises GateRefused then."""
        try:
            asked = self._find(request)
            decision = decide(request, facts=asked.facts, outside=outside, now=self._clock.now())
            if not decision.is_allowed:
                raise decision.to_error()
            self._open(asked).close()  # a key destroyed meanwhile ends the lease
        except RscError as error:
            self._log("lease_denied", request, reason=error.message)
            raise
        return decision

    def log_ended(self, leases: Iterable[tuple[int, KeyRequest, str]]) -> None:
        """Log that leases are over: (number of the release, its request, `returned`, `gone` or `expired`)."""
        self._audit.append_many(
            {"kind": "lease_ended", **_about(request), "release": number, "how": how}
            for number, request, how in leases
        )

    def _find(self, request: KeyRequest) -> _Asked:
        if request.purpose == "checkpoint":
            return self._find_run(request)
        dataset = Dataset.open(self._workspace.data, name=str(request.data), version=request.version)
        facts = self._data_facts(dataset)
        return _Asked(
            dataset.envelope(),
            data_key_context(dataset.name),
            facts,
            {"version": dataset.version, "root_hash": dataset.root_hash},
        )

    def _find_run(self, request: KeyRequest) -> _Asked:
        run = str(request.run)
        run_record(self._workspace, run)
        try:
            envelope = Envelope.from_json((self._workspace.runs / run / "key.json").read_bytes())
        except FileNotFoundError:
            raise IntegrityError(f"run {run} has no key.json", outcome="no_key") from None
        facts = None
        if request.data is not None:
            dataset = Dataset.open(self._workspace.data, name=request.data, version=request.version)
            facts = self._data_facts(dataset)
        return _Asked(envelope, run_key_context(run), facts, {})

    def _data_facts(self, dataset: Dataset) -> DataFacts:
        return data_facts(
            dataset, identities=self._workspace.identities, now=self._clock.now(), memory=self._memory
        )

    def _open(self, asked: _Asked) -> SecretKey:
        provider = self._providers.get(asked.envelope.provider)
        if provider is None:
            known = ", ".join(self._providers) or "none"
            raise ConfigError(
                f"the key provider {asked.envelope.provider!r} is not configured here (configured: {known})",
                hint="docs/keys.md says how to configure one",
            )
        return open_envelope(provider, asked.envelope, context=asked.context)

    def _log(self, kind: str, request: KeyRequest, **facts: Any) -> int:
        return self._audit.append(kind, **{**_about(request), **facts})


def _about(request: KeyRequest) -> dict[str, Any]:
    names = ("data", "version", "run", "purpose", "user")
    return {name: value for name in names if (value := getattr(request, name)) is not None}
