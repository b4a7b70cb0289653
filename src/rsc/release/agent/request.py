"""What somebody asks the key agent for. Standard library only: workers import it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any, Literal

from rsc.errors import ConfigError

Purpose = Literal["review", "train", "evaluate", "export", "checkpoint"]
PURPOSES: tuple[Purpose, ...] = ("review", "train", "evaluate", "export", "checkpoint")


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """One key: of a data set version (`data` named), or of a run's checkpoints (purpose `checkpoint`, or
    `export` where a run is named and no data)."""

    purpose: Purpose
    user: str = ""
    """Name of who asks, in the password database. The agent puts it here, as the kernel says who it is."""
    data: str | None = None
    version: int | None = None
    """None is the newest."""
    run: str | None = None
    isolation: dict[str, Any] | None = None
    """`Report.to_json()` of the probe, measured inside; None when it was not measured."""
    hygiene: dict[str, Any] | None = None
    uid: int | None = None
    """Account of who asks; from the kernel, as `user`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> KeyRequest:
        """Raises ConfigError for fields it does not know and for a request that names no key."""
        try:
            request = cls(**record)
        except TypeError as error:
            raise ConfigError(f"not a key request: {error}") from None
        wrong = [name for name, kinds in _KINDS.items() if not isinstance(getattr(request, name), kinds)]
        if wrong:
            raise ConfigError(f"not a key request: {', '.join(wrong)} of the wrong kind")
        long = [
            name for name, value in record.items() if isinstance(value, str) and len(value) > _MAX_LETTERS
        ]
        if long:
            raise ConfigError(f"not a key request: {', '.join(long)} above {_MAX_LETTERS} letters")
        if request.purpose not in PURPOSES:
            raise ConfigError(f"{request.purpose!r} is not a purpose", hint=f"one of: {', '.join(PURPOSES)}")
        if (request.run if request.purpose == "checkpoint" else request.data) is None:
            raise ConfigError(f"a request for {request.purpose} names no {_NAMED[request.purpose]}")
        return request

    @property
    def is_for_run(self) -> bool:
        return self.purpose == "checkpoint" or (self.purpose == "export" and self.data is None)

    @property
    def subject(self) -> str:
        """What the key belongs to, for messages."""
        if self.is_for_run:
            return f"run {self.run}"
        return f"{self.data} version {self.version}" if self.version else str(self.data)


_MAX_LETTERS = 256  # names go into the log, whose records are bounded
_KINDS: dict[str, tuple[type, ...]] = {
    "purpose": (str,),
    "user": (str,),
    "data": (str, NoneType),
    "version": (int, NoneType),
    "run": (str, NoneType),
    "isolation": (dict, NoneType),
    "hygiene": (dict, NoneType),
    "uid": (int, NoneType),
}
_NAMED = {purpose: "run" if purpose == "checkpoint" else "data set" for purpose in PURPOSES}
