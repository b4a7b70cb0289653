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
from rsc.keys.envelope import data_key_context, open_envelope, rewrap
from rsc.release.lifecycle.import_lock import no_imports
from rsc.release.lifecycle.kek_index import Providers, active_keks, kek_info, new_kek
from rsc.store.dataset import Dataset, list_versions


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
    finishes: the log knows which keys were to go. Raises ConfigError when there is no such data set or
    provider and while an import into it is not finished, KeyUnavailable when no version has a living key.
    """
    if to is not None and to not in providers:
        raise ConfigError(f"there is no key provider {to!r}", hint=f"configured: {', '.join(providers)}")
    Dataset.open(workspace.bulk, name=name)  # before a folder is made to hold it
    with no_imports(workspace, [name]):
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
                _log(audit, "rotation_began", name, old, new=(target.name, made[old]), user=user)
            context = data_key_context(name)
            renewed = rewrap(source, envelope, kek_id=made[old], context=context, to=target)
            open_envelope(target, renewed, context=context).close()
            dataset.replace_envelope(renewed)
        ended = _end_old(workspace, name, providers=providers, audit=audit, user=user)
    versions = tuple(dataset.version for dataset in living)
    return Rotated(name, versions, ended, tuple(made.values()))


def _end_old(
    workspace: Workspace, name: str, *, providers: Providers, audit: AuditLog, user: str
) -> tuple[str, ...]:
    """Destroy the keys that this rotation, or one that was stopped, replaced, and those that it made and no
    version came under. Returns their ids."""
    envelopes = [
        Dataset.open(workspace.bulk, name=name, version=number).envelope()
        for number in list_versions(workspace.bulk, name)
    ]
    needed = {(envelope.provider, envelope.kek_id) for envelope in envelopes}
    began = [entry for entry in audit.entries(data=name) if entry["kind"] == "rotation_began"]
    moves = [((entry["old_provider"], entry["old"]), (entry["provider"], entry["new"])) for entry in began]
    replaced = dict(moves)
    active = {*active_keks(providers)} - needed
    ended = sorted(active.intersection([place for move in moves for place in move]))
    for provider, kek_id in ended:
        providers[provider].destroy(kek_id)
        if (new := replaced.get((provider, kek_id))) is not None:
            _log(audit, "key_rotated", name, (provider, kek_id), new=new, user=user)
        else:
            _log_unused(audit, name, (provider, kek_id), user=user)
    return tuple(kek_id for _, kek_id in ended)


def _log(
    audit: AuditLog, kind: str, name: str, old: tuple[str, str], *, new: tuple[str, str], user: str
) -> None:
    audit.append(kind, data=name, old_provider=old[0], old=old[1], provider=new[0], new=new[1], user=user)


def _log_unused(audit: AuditLog, name: str, place: tuple[str, str], *, user: str) -> None:
    reason = "a rotation stopped before it was used"
    audit.append("key_destroyed", data=name, provider=place[0], kek_id=place[1], user=user, reason=reason)


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
