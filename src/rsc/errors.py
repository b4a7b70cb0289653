"""Everything RSC raises on purpose, as one tree. The class decides the exit code (docs/exit-codes.md).

    RscError                       1   the run failed
    |- ConfigError                 2   usage or configuration: unknown key, impossible value, missing file
    |  `- DataError                2   a source that cannot be read as what it claims to be
    |- GateRefused                 3   the privacy gate said no
    |  |- ReviewMissing                nobody approved these bytes
    |  |- ReviewVoid                   approved once, but the bytes, report or policy changed since
    |  |- ReviewRejected               a reviewer or the policy rejected them
    |  |- KeyUnavailable               the key was destroyed, has expired, or is not the one that wrote this
    |  `- IsolationRefused             the policy wants isolation that this process cannot prove
    |- IntegrityError              1   bytes that fail authentication (outcome: one of six words)
    |- ResourceError               4   disk full, out of memory, unhealthy node
    |- NotFinished                 5   still waiting
    |- RequeueMe                  75   checkpointed on request, start me again
    `- Interrupted               130   Ctrl-C

A message says what failed with its values and the rule; `hint` says what to do and must be true.
No message ever holds plaintext, key bytes or the personal text that matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class RscError(Exception):
    """Base of the tree. `facts` are the values in the message, for code and `--json`."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        text = f"{type(self).__name__}: {self.message}"
        return f"{text}\nhint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.facts))


def _rebuild(kind: type[RscError], message: str, hint: str | None, facts: dict[str, Any]) -> RscError:
    return kind(message, hint=hint, **facts)


class ConfigError(RscError):
    exit_code = 2


class DataError(ConfigError):
    pass


class GateRefused(RscError):
    exit_code = 3


class ReviewMissing(GateRefused):
    pass


class ReviewVoid(GateRefused):
    pass


class ReviewRejected(GateRefused):
    pass


class KeyUnavailable(GateRefused):
    pass


class IsolationRefused(GateRefused):
    pass


class IntegrityError(RscError):
    """`facts["outcome"]` is one of `no_key header frame truncated trailing` (docs/format.md)."""


class ResourceError(RscError):
    exit_code = 4


class NotFinished(RscError):
    exit_code = 5


class RequeueMe(RscError):
    exit_code = 75


class Interrupted(RscError):
    exit_code = 130


def to_message(error: RscError) -> dict[str, Any]:
    """An error in words for another process of ours: its class by name, message and hint."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def from_message(message: Mapping[str, Any], *, unknown: type[RscError] = RscError, **facts: Any) -> RscError:
    """The error that the other side met, as the class it had there; `unknown` where this tree has none of
    that name."""
    kind = globals().get(str(message["error"]))
    if not (isinstance(kind, type) and issubclass(kind, RscError)):
        kind = unknown
    return kind(str(message["message"]), hint=message.get("hint"), **facts)
