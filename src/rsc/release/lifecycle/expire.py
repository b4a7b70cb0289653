"""The end of data: destroy the key, prove that nothing opens any more, delete the bytes, log it.

    control: it opens -> destroy the key -> try in place -> delete the bytes -> try a restored copy
             -> end the papers

The order makes every crash safe: once the key is gone the data is gone, whatever happens to the bytes,
and doing it again finishes the rest. What stays is a root.json and a report of numbers alone
(store/ended.py), the policy, the approvals and the key's tombstone: enough to show that the data was there,
who approved it, and when it ended. The log has the hash of that root.json, so no other passes for it.

Versions under one key can have different ends. Those that live on are first wrapped anew under a
fresh key, and so is an import that was stopped and can go on; their data stays as it is. While an import runs
nothing of its data set is ended: its version would come under a key that is gone.

Not covered: in a place that workspaces share, an import of another machine that is published in the moment in
which its key ends; a data key that a process still holds (its lease ends within minutes, the next renewal
is refused); copies of the *key folder* itself, as in a backup of a local provider without a passphrase;
models and exports trained on the data (release/lifecycle/trace.py finds them).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rsc.audit.log import AuditLog
from rsc.config import Workspace
from rsc.errors import IntegrityError, KeyUnavailable, RscError
from rsc.keys.envelope import KeyProvider, data_key_context, open_envelope, rewrap
from rsc.release.lifecycle.kek_index import Providers, active_keks, kek_info, new_kek
from rsc.review.public_text import public_text
from rsc.review.report import report_from_json
from rsc.store.bulk.interface import BulkStore, read_all
from rsc.store.bulk.locations import open_store
from rsc.store.cache.node_cache import forget_chunks
from rsc.store.dataset import Dataset, list_versions
from rsc.store.format.root import review_path
from rsc.store.splits import open_manifest
from rsc.store.staging import Unfinished, list_unfinished, only_writer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to decrypt. Before the end it must work, or a failure afterwards would prove nothing."""

    where: str
    opened: bool
    told: str


@dataclass(frozen=True, slots=True)
class Expired:
    name: str
    versions: tuple[int, ...]
    kek_ids: tuple[str, ...]
    freed_bytes: int
    before: tuple[Attempt, ...]
    after: tuple[Attempt, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def expire(
    workspace: Workspace,
    name: str,
    *,
    providers: Providers,
    audit: AuditLog,
    user: str,
    version: int | None = None,
    reason: str = "asked for",
) -> Expired:
    """End a data set, or one version of it. Can be called again after a crash or a failure.

    With the whole of it goes an import into it that was stopped.

    Raises ConfigError when there is no such data set and while an import into it runs, KeyUnavailable when a
    key that is said to be there does not open it before (nothing is destroyed then), IntegrityError when it
    still opens afterwards (nothing is deleted then).
    """
    Dataset.open(workspace.bulk, name=name, version=version)  # before a folder is made to hold it
    with only_writer(workspace.data / name):
        return expire_held(
            workspace, name, providers=providers, audit=audit, user=user, version=version, reason=reason
        )


def expire_held(
    workspace: Workspace,
    name: str,
    *,
    providers: Providers,
    audit: AuditLog,
    user: str,
    version: int | None,
    reason: str,
) -> Expired:
    """`expire` by somebody who sees to it that nobody imports meanwhile (`only_writer`)."""
    reason = public_text(reason)  # the log keeps it for ever
    versions = [version] if version is not None else list_versions(workspace.bulk, name)
    datasets = [Dataset.open(workspace.bulk, name=name, version=number) for number in versions]
    datasets = datasets or [Dataset.open(workspace.bulk, name=name)]
    _require_control(datasets, providers)
    copies = [_copy_of(dataset) for dataset in datasets]
    pairs = list(zip(copies, datasets, strict=True))
    before = tuple(_try(copy, dataset, providers, where="restored copy") for copy, dataset in pairs)
    kek_ids = _destroy_keys(
        workspace,
        datasets,
        providers=providers,
        audit=audit,
        user=user,
        reason=reason,
        is_all=version is None,
    )
    _require_closed([_try(d.store, d, providers, where="in place") for d in datasets])
    for dataset in datasets:
        _forget_cached(workspace, dataset)
    freed_bytes = sum(_delete_bytes(dataset) for dataset in datasets)
    if version is None and workspace.bulk == workspace.data:
        for begun in list_unfinished(workspace.bulk, name):
            begun.remove()
    after = tuple(_try(copy, dataset, providers, where="restored copy") for copy, dataset in pairs)
    _require_closed(after)
    papers = {str(dataset.version): _end_papers(dataset) for dataset in datasets}
    ended = Expired(name, tuple(d.version for d in datasets), kek_ids, freed_bytes, before, after)
    audit.append("data_expired", data=name, user=user, reason=reason, papers=papers, **_log_facts(ended))
    return ended


def _copy_of(dataset: Dataset) -> BulkStore:
    """What a backup of the ciphertext would bring back, in memory: enough to decrypt the first frame."""
    store = open_store("memory://")
    for path in ("root.json", "key.json"):
        _copy_file(dataset, f"{dataset.folder}/{path}", to=store)
    split = _smallest_split(dataset)
    if split is not None:
        place = dataset.place(split)
        _copy_file(dataset, place.manifest_path, to=store)
        _copy_file(dataset, place.shard_path(0), to=store)
    return store


def _copy_file(dataset: Dataset, path: str, *, to: BulkStore) -> None:
    try:
        to.put(path, read_all(dataset.store.open(path)))
    except FileNotFoundError:
        return  # deleted by an earlier try that did not finish


def _smallest_split(dataset: Dataset) -> str | None:
    filled = [name for name, info in dataset.splits.items() if info.num_samples]
    return min(filled, key=lambda name: dataset.splits[name].size_bytes, default=None)


def _try(store: BulkStore, dataset: Dataset, providers: Providers, *, where: str) -> Attempt:
    """Do what a reader does: open the envelope, then the first frame."""
    try:
        found = Dataset.open(store, name=dataset.name, version=dataset.version)
        envelope = found.envelope()
        split = _smallest_split(found)
        with open_envelope(
            providers[envelope.provider], envelope, context=data_key_context(found.name)
        ) as key:
            if split is not None:
                next(found.split(split, key=key).iterate())
    except RscError as error:
        return Attempt(where, False, error.message)
    return Attempt(where, True, "decrypted its first frame" if split else "opened its key")


def _require_control(datasets: list[Dataset], providers: Providers) -> None:
    """Raises KeyUnavailable for a key that is active and does not open: the provider may be set to another
    place than where it was made, and what is destroyed there would end nothing here."""
    active = active_keks(providers)
    for dataset in datasets:
        envelope = dataset.envelope()
        if (envelope.provider, envelope.kek_id) not in active:
            continue
        provider, context = providers[envelope.provider], data_key_context(dataset.name)
        try:
            open_envelope(provider, envelope, context=context).close()
        except KeyUnavailable as error:
            if error.facts.get("state") not in ("destroyed", "expired"):
                raise KeyUnavailable(
                    f"{dataset.name} version {dataset.version} does not open before its end, so destroying "
                    f"{envelope.kek_id} would prove nothing: {error.message}",
                    hint=f"check the settings of the key provider {envelope.provider}",
                    kek_id=envelope.kek_id,
                ) from None


def _require_closed(attempts: list[Attempt] | tuple[Attempt, ...]) -> None:
    for attempt in attempts:
        if attempt.opened:
            raise IntegrityError(
                f"the key was destroyed and the data still opens ({attempt.where}: {attempt.told})",
                hint="nothing was deleted; look at the key provider before you rely on it",
                outcome="no_key",
            )


def _destroy_keys(
    workspace: Workspace,
    datasets: list[Dataset],
    *,
    providers: Providers,
    audit: AuditLog,
    user: str,
    reason: str,
    is_all: bool,
) -> tuple[str, ...]:
    """Destroy the keys of these versions, after moving others off them. Returns their ids."""
    name = datasets[0].name
    ending = {dataset.version for dataset in datasets}
    living: list[Dataset | Unfinished] = [
        Dataset.open(workspace.bulk, name=name, version=number)
        for number in list_versions(workspace.bulk, name)
        if number not in ending
    ]
    if not is_all:
        living += [begun for begun in list_unfinished(workspace.bulk, name) if begun.is_resumable()]
    found = {(dataset.envelope().provider, dataset.envelope().kek_id) for dataset in datasets}
    if not living:
        prefix = f"data/{name}/"
        found |= {
            (provider.name, info.kek_id)
            for provider in providers.values()
            for info in provider.list()
            if info.kek_id.startswith(prefix)
        }
    for provider_name, kek_id in sorted(found):
        provider = providers[provider_name]
        if (provider_name, kek_id) in active_keks(providers):
            for dataset in living:
                _move_off(dataset, provider, kek_id=kek_id)
        destroyed = provider.destroy(kek_id)
        audit.append(
            "key_destroyed",
            data=name,
            provider=provider_name,
            kek_id=kek_id,
            user=user,
            reason=reason,
            state=destroyed.state,
        )
    return tuple(sorted(kek_id for _, kek_id in found))


def _move_off(dataset: Dataset | Unfinished, provider: KeyProvider, *, kek_id: str) -> None:
    """Wrap the key of a version that lives on, or will, under a new KEK, if it is under this one."""
    envelope = dataset.envelope()
    if (envelope.provider, envelope.kek_id) != (provider.name, kek_id):
        return
    new = new_kek(provider, dataset.name, like=kek_info(provider, kek_id))
    dataset.replace_envelope(rewrap(provider, envelope, kek_id=new, context=data_key_context(dataset.name)))


def _delete_bytes(dataset: Dataset) -> int:
    """Remove shards and manifests; returns their size."""
    freed = 0
    for split, info in dataset.splits.items():
        place = dataset.place(split)
        dataset.store.delete_folder(f"{dataset.folder}/{split}")
        dataset.store.delete(place.manifest_path)
        freed += info.size_bytes
    return freed


def _end_papers(dataset: Dataset) -> str:
    """Take what its source said out of root.json and the review. Returns the hash of the root that stays."""
    dataset.store.delete(review_path(dataset.folder, "decisions.json"))
    try:
        report = report_from_json(dataset.read_review("report.json") or b"").ended().to_json()
    except (ValueError, KeyError, TypeError):
        report = b"{}"  # an older or damaged one: nothing of it stays
    return dataset.end_papers(report=report)


def _forget_cached(workspace: Workspace, dataset: Dataset) -> None:
    """Remove its ciphertext from the cache of this node. Shards that are gone already have no manifest."""
    for split in dataset.splits:
        try:
            manifest = open_manifest(dataset.place(split), totals=dataset.totals(split))
        except IntegrityError:
            continue
        for shard in range(dataset.splits[split].num_shards):
            forget_chunks(workspace.cache, digest=manifest.record(shard).digest)
        manifest.close()


def _log_facts(ended: Expired) -> dict[str, Any]:
    return {
        "versions": list(ended.versions),
        "kek_ids": list(ended.kek_ids),
        "freed_bytes": ended.freed_bytes,
        "opened_before": [attempt.opened for attempt in ended.before],
        "opened_after": [attempt.opened for attempt in ended.after],
    }
