"""Is every version that the log tells of here, whole, and under a key that opens it?

For each version: the root is the one of the log, manifests are the root's, the tail of each shard is the
manifest's, the envelope opens. So a file that is missing, cut, swapped, or of an older version is named.

`bytes_whole` reads the shards too, in an object store as well: every byte, by the hashes that hang on the
root, for which no key is needed.

Not covered: `versions_whole` reads no byte inside a shard; in an object store it looks at no shard, and it
asks for no key that only a service, a token or a passphrase opens: each would cost a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rsc.errors import IntegrityError, KeyUnavailable, RscError
from rsc.keys.envelope import KeyProvider, data_key_context, open_envelope
from rsc.release.verify.checks import VerifyContext
from rsc.release.verify.promise import Breach, Promise, judge
from rsc.store.bulk.interface import BulkStore
from rsc.store.bulk.local import LocalStore
from rsc.store.dataset import Dataset, list_datasets, list_versions
from rsc.store.format.footer import read_tail
from rsc.store.format.manifest import ShardRecord
from rsc.store.splits import open_manifest
from rsc.store.staging import abandoned
from rsc.units import format_bytes

BYTES_WHOLE = "bytes whole"


def versions_whole(house: VerifyContext) -> Promise:
    recorded = house.recorded
    found = [(name, number) for name, numbers in list_datasets(house.workspace.bulk) for number in numbers]
    breaches = []
    for name, number in sorted({*recorded.versions, *found}):
        said = recorded.versions.get((name, number))
        if said is None and house.workspace.bulk != house.workspace.data:
            continue  # a place that other workspaces share has versions that only their logs know
        told = f"{name} version {number}"
        if said is None:
            breaches.append(Breach(f"{told} is here, and the log says nothing of where it came from", name))
        elif (name, number) not in found:
            breaches.append(Breach(f"{told} is not here; record {said.index} of the log brought it", name))
        root_hash = None if said is None else said.value
        breaches += [
            Breach(f"{told}: {what}", name) for what in _faults(house, name, number, root_hash=root_hash)
        ]
    if house.workspace.bulk == house.workspace.data:
        breaches += [
            Breach(
                f"{begun.folder} was left by a killed command; `rsc keys sweep` removes it",
                begun.name,
            )
            for begun in abandoned(house.workspace.data)
        ]
    return judge("versions whole", breaches, told=f"{len(found)} versions: {_read_of(house)}")


def bytes_whole(house: VerifyContext) -> Promise:
    """Read every byte of the shards of `house.read`; those of versions whose key is destroyed are gone, or
    about to go. Raises ResourceError when the storage does not answer."""
    states = {(p.name, info.kek_id): info.state for p in house.providers.values() for info in p.list()}
    breaches, num_shards, size_bytes = [], 0, 0
    for name, numbers in list_datasets(house.workspace.bulk):
        for number in numbers:
            try:
                dataset = Dataset.open(house.workspace.bulk, name=name, version=number)
                envelope = dataset.envelope()
            except IntegrityError as error:
                breaches.append(Breach(f"{name} version {number} was not read: {error.message}", name))
                continue
            if states.get((envelope.provider, envelope.kek_id)) == "destroyed":
                continue
            report = dataset.verify(part=house.read)
            num_shards, size_bytes = num_shards + report.num_shards, size_bytes + report.size_bytes
            breaches += [Breach(f"{problem.path}: {problem.message}", name) for problem in report.problems]
    told = f"every byte of {num_shards} shards read, {format_bytes(size_bytes)}"
    part = "" if house.read.is_all else f" (part {house.read.number}/{house.read.of})"
    return judge(BYTES_WHOLE, breaches, told=told + part)


def _read_of(house: VerifyContext) -> str:
    """What `versions_whole` looks at, in words, and how to have the rest read."""
    looked = "roots, manifests and ends of shards"
    if not isinstance(house.workspace.bulk, Path):
        looked = "roots and manifests"
    return f"{looked} as recorded; --read-data reads every byte"


def _faults(house: VerifyContext, name: str, number: int, *, root_hash: str | None) -> Iterator[str]:
    """What is wrong with one version, in words that name the file."""
    if number not in list_versions(house.workspace.bulk, name):
        return
    try:
        dataset = Dataset.open(house.workspace.bulk, name=name, version=number)
    except RscError as error:
        yield error.message
        return
    found = house.recorded.root_of((name, number), root_hash=dataset.root_hash)
    if root_hash is not None and found != root_hash:
        yield "root.json is not the one that the log recorded"
    try:
        envelope = dataset.envelope()
    except IntegrityError as error:
        yield error.message
        return
    provider = house.providers.get(envelope.provider)
    if provider is None:
        return  # its keys cannot be looked at from here
    states = {info.kek_id: info.state for info in provider.list()}
    if states.get(envelope.kek_id) == "destroyed":
        return  # ended: its bytes are gone, or about to go
    if envelope.kek_id not in states:
        yield f"its key {envelope.kek_id} is gone from {provider.name}, and was not destroyed by a command"
        return
    wrong = list(_wrong_files(dataset))
    yield from wrong
    if provider.is_immediate and not wrong:
        yield from _wrong_key(dataset, provider)


def _wrong_files(dataset: Dataset) -> Iterator[str]:
    for split in dataset.splits:
        place = dataset.place(split)
        try:
            manifest = open_manifest(place, totals=dataset.totals(split))
            for record in manifest.records():
                fault = _wrong_end(dataset.store, place.shard_path(record.shard), record)
                if fault is not None:
                    yield f"{split}/{record.shard:09d}.rsc: {fault}"
            manifest.close()
        except IntegrityError as error:
            yield f"{split}.manifest: {error.message}"


def _wrong_end(store: BulkStore, path: str, record: ShardRecord) -> str | None:
    if not isinstance(store, LocalStore):
        return None
    try:
        source = store.open(path)
    except FileNotFoundError:
        return "the file is missing"
    try:
        is_recorded = read_tail(source).digest == record.digest
    except IntegrityError as error:
        return error.message
    finally:
        source.close()
    return None if is_recorded else "not the file that the manifest records here"


def _wrong_key(dataset: Dataset, provider: KeyProvider) -> Iterator[str]:
    """Open the envelope and, with its key, a shard: the envelope of another version opens none."""
    filled = [name for name, info in dataset.splits.items() if info.num_samples]
    try:
        with open_envelope(provider, dataset.envelope(), context=data_key_context(dataset.name)) as key:
            if filled and isinstance(dataset.store, LocalStore):
                dataset.split(filled[0], key=key).open_shard(0).close()
    except KeyUnavailable as error:
        if error.facts.get("state") != "expired":
            yield f"key.json: {error.message}"
    except IntegrityError as error:
        yield f"key.json holds another key: {error.message}"
