"""Rotation: the same data under a new key-encryption key, and the old one destroyed.

Data, review and approvals stay as they are; only the small envelope of each version is replaced. A
copy of an old envelope no longer opens afterwards. With another provider as target this is also how keys
move from a folder to a token or a service.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.errors import ConfigError, KeyUnavailable
from rsc.release.retention import Providers, kek_info, new_kek
from rsc.store.dataset import Dataset, list_versions
from rsc.store.keys import data_key_context, open_envelope, rewrap


@dataclass(frozen=True, slots=True)
class Rotated:
    name: str
    versions: tuple[int, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def rotate(
    workspace: Workspace,
    name: str,
    *,
    providers: Providers,
    audit: AuditLog,
    user: str,
    to: str | None = None,
) -> Rotated:
    """Wrap every living version of a data set anew, check that each opens, then destroy the old keys.

    `to` names another provider. A crash before the end leaves everything readable; doing it again
    finishes. Raises ConfigError when there is no such data set or provider, KeyUnavailable when no version
    has a living key.
    """
    if to is not None and to not in providers:
        raise ConfigError(f"there is no key provider {to!r}", hint=f"configured: {', '.join(providers)}")
    living = list(_living(workspace, name, providers))
    if not living:
        raise KeyUnavailable(f"no version of {name} has a key any more")
    made: dict[tuple[str, str], str] = {}
    for dataset in living:
        envelope = dataset.envelope()
        source = providers[envelope.provider]
        target = providers[to] if to else source
        old = (source.name, envelope.kek_id)
        if old not in made:
            made[old] = new_kek(target, name, like=kek_info(source, envelope.kek_id))
        context = data_key_context(name)
        renewed = rewrap(source, envelope, kek_id=made[old], context=context, to=target)
        open_envelope(target, renewed, context=context).close()
        dataset.replace_envelope(renewed)
    for (provider, kek_id), new in made.items():
        providers[provider].destroy(kek_id)
        audit.append(
            "key_rotated",
            data=name,
            old_provider=provider,
            old=kek_id,
            provider=to or provider,
            new=new,
            user=user,
        )
    versions = tuple(dataset.version for dataset in living)
    return Rotated(name, versions, tuple(kek_id for _, kek_id in made), tuple(made.values()))


def _living(workspace: Workspace, name: str, providers: Providers) -> list[Dataset]:
    """Versions whose key can still be opened."""
    found = []
    for number in list_versions(workspace.bulk, name) or [0]:
        dataset = Dataset.open(workspace.bulk, name=name, version=number or None)
        envelope = dataset.envelope()
        try:
            provider = providers[envelope.provider]
            open_envelope(provider, envelope, context=data_key_context(name)).close()
        except KeyUnavailable:
            continue
        found.append(dataset)
    return found
