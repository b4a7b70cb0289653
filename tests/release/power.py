"""Power that is lost before or after any step of a command that changes something."""

from __future__ import annotations

import pytest


class PowerLoss(BaseException):
    """Nothing may catch it and go on."""


def stop_at(
    patch: pytest.MonkeyPatch, number: int, *, steps: list[tuple[type, str]], is_after: bool
) -> list[str]:
    """Lose power before or after the numbered call of any of these methods; returns the calls seen."""
    seen: list[str] = []

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def step(*arguments, **options):
            seen.append(name)
            if len(seen) == number and not is_after:
                raise PowerLoss
            result = original(*arguments, **options)
            if len(seen) == number:
                raise PowerLoss
            return result

        patch.setattr(owner, name, step)

    for owner, name in steps:
        watch(owner, name)
    return seen
