"""Data sets as records: list, show, check: what `rsc data ls show verify` print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rsc.api.label_counts import LabelCounts, count_labels
from rsc.api.record import Record, entry, html_table
from rsc.clock import timestamp
from rsc.errors import RscError
from rsc.keys.envelope import KeyProvider
from rsc.loader.config import DataConfig
from rsc.loader.order import read_amplification
from rsc.loader.shuffle_quality import ShuffleQuality, can_be_packed, measure_split
from rsc.release.agent.custody import Custody
from rsc.release.agent.decision import DataFacts
from rsc.release.record.reviewers import acting_name
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.format.schema import Field
from rsc.units import format_bytes

_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
"""Numbers of data-parallel ranks for which `rsc data show` prints how often a frame is read."""


@dataclass(frozen=True)
class DataState(Record):
    """A version of a data set and where its review stands."""

    data: str
    version: int
    root_hash: str
    state: str
    reason: str
    approvers: list[str]
    approved_until: str | None
    single_person: bool
    author: str | None
    created: str
    kept_until: str
    samples: dict[str, int]
    size_bytes: int

    def _repr_html_(self) -> str:
        return html_table(f"{self.data} version {self.version}", self._rows())

    def _rows(self) -> list[tuple[str, str]]:
        single = " (single person)" if self.single_person else ""
        return [
            ("review", f"{self.state.replace('_', ' ')}{single}, {self.reason}"),
            ("kept until", self.kept_until),
            ("stored", format_bytes(self.size_bytes)),
            *((f"split {name}", f"{count:,} samples") for name, count in self.samples.items()),
        ]


@dataclass(frozen=True)
class ListedData(DataState):
    """A line of `rsc data ls`: the newest version."""

    key: str
    """`active`, `destroyed` or `unknown`."""
    versions: list[int]


@dataclass(frozen=True)
class DataDetails(DataState):
    """Everything public about a version."""

    splits: dict[str, Any]
    key: dict[str, str]
    facts: dict[str, Any]
    shuffle: dict[str, Any]
    reads: dict[str, Any]
    labels: LabelCounts | None = None
    """Where they were asked for."""


@dataclass(frozen=True)
class Verified(Record):
    """What reading every byte again found."""

    data: str
    version: int
    root_hash: str
    is_good: bool
    shards: int
    size_bytes: int
    frames_authenticated: int
    problems: list[dict[str, str]]


@entry
def data_sets() -> list[ListedData]:
    """The newest version of each data set."""
    house = Custody.open()
    found = []
    for name, versions in list_datasets(house.workspace.bulk):
        dataset = Dataset.open(house.workspace.bulk, name=name)
        state = state_of(dataset, house.facts(dataset))
        key = _key_state(dataset, providers=house.providers)
        found.append(ListedData(**state, key=key, versions=list(versions)))
    return found


@entry
def data_set(
    name: str, *, version: int | None = None, labels: bool = False, as_name: str | None = None
) -> DataDetails:
    """Splits, fields, sizes, source, review and keys of a version; the newest if none is given. `labels`
    reads the data and counts them: the release of the key is logged. Raises GateRefused."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    envelope, shuffles = dataset.envelope(), dict(_shuffles(dataset))
    counts = _labels(house, dataset, as_name=as_name) if labels else None
    return DataDetails(
        **state_of(dataset, house.facts(dataset)),
        splits={
            split: {
                "samples": info.num_samples,
                "shards": info.num_shards,
                "frames": info.num_frames,
                "size_bytes": info.size_bytes,
                "fields": {item.name: field_kind(item) for item in info.schema.fields},
            }
            for split, info in dataset.splits.items()
        },
        key={
            "provider": envelope.provider,
            "kek_id": envelope.kek_id,
            "state": _key_state(dataset, providers=house.providers),
            "wrapped": timestamp(envelope.created),
        },
        facts=dict(dataset.facts),
        shuffle={
            split: {**asdict(quality), "told": quality.explain()} for split, quality in shuffles.items()
        },
        reads={
            split: {"by_ranks": _amplifications(quality.lanes), "told": _reads_text(quality.lanes)}
            for split, quality in shuffles.items()
            if quality.packing is None
        },
        labels=counts,
    )


def _labels(house: Custody, dataset: Dataset, *, as_name: str | None) -> LabelCounts:
    acting_name(house, as_name)
    with house.review_key(dataset) as key:
        return count_labels(dataset, key=key)


@entry
def verify_data(
    name: str, *, version: int | None = None, with_key: bool = False, as_name: str | None = None
) -> Verified:
    """Read every byte of a version again and check it against its root; with the key each frame's tag."""
    house = Custody.open()
    dataset = Dataset.open(house.workspace.bulk, name=name, version=version)
    acting_name(house, as_name)
    if with_key:
        with house.review_key(dataset) as key:
            report = dataset.verify(key=key)
    else:
        report = dataset.verify()
    return Verified(
        **version_of(dataset),
        is_good=report.is_good,
        shards=report.num_shards,
        size_bytes=report.size_bytes,
        frames_authenticated=report.frames_authenticated,
        problems=[
            {"path": problem.path, "outcome": problem.outcome, "message": problem.message}
            for problem in report.problems
        ],
    )


def version_of(dataset: Dataset) -> dict[str, Any]:
    return {"data": dataset.name, "version": dataset.version, "root_hash": dataset.root_hash}


def state_of(dataset: Dataset, facts: DataFacts) -> dict[str, Any]:
    """The fields of a `DataState`."""
    return {
        **version_of(dataset),
        "state": facts.review.state,
        "reason": facts.review.reason,
        "approvers": list(facts.review.approvers),
        "approved_until": facts.review.expires,
        "single_person": facts.review.single_person,
        "author": dataset.facts.get("author"),
        "created": timestamp(dataset.created),
        "kept_until": timestamp(facts.retained_until),
        "samples": {name: split.num_samples for name, split in dataset.splits.items()},
        "size_bytes": sum(split.size_bytes for split in dataset.splits.values()),
    }


def field_kind(item: Field) -> str:
    """`string`, `int64`, `int64?` where values may be missing, `uint8[32x32x3]`, `uint16 tokens`."""
    if item.kind in ("string", "bytes"):
        return item.kind
    shape = "x".join(map(str, item.shape))
    if item.kind == "tokens":
        return f"{item.dtype} tokens"
    return f"{item.dtype}[{shape}]" if shape else item.dtype + ("" if item.missing is None else "?")


def _key_state(dataset: Dataset, *, providers: Mapping[str, KeyProvider]) -> str:
    """`active` or `destroyed`; `unknown` where the provider is not configured here or does not answer."""
    envelope = dataset.envelope()
    try:
        states = {info.kek_id: info.state for info in providers[envelope.provider].list()}
    except (KeyError, RscError):
        return "unknown"
    return states.get(envelope.kek_id, "unknown")


def _shuffles(dataset: Dataset) -> Iterator[tuple[str, ShuffleQuality]]:
    """How well the loader's window mixes the split trained on, and rows packed of it; needs no key."""
    split = dataset.splits.get("train")
    if split is None or not split.num_samples:
        return
    yield "train", measure_split(dataset, "train")
    if can_be_packed(split.schema):
        length = int(DataConfig.model_fields["sequence_length"].default)
        yield "train, packed", measure_split(dataset, "train", sequence_length=length)


def _amplifications(lanes: int) -> dict[str, int]:
    """How often each frame is read, by the number of data-parallel ranks."""
    return {str(ranks): read_amplification(lanes, world_size=ranks) for ranks in _RANKS}


_MAX_TOLD = 4


def _reads_text(lanes: int) -> str:
    """`_amplifications` as a sentence: which numbers of ranks read a frame once, twice, ..."""
    by_times: dict[int, list[str]] = {}
    for ranks, times in _amplifications(lanes).items():
        by_times.setdefault(times, []).append(ranks)
    told = [
        f"{'once' if times == 1 else f'{times} times'} by {', '.join(ranks)}"
        for times, ranks in sorted(by_times.items())
    ]
    if len(told) > _MAX_TOLD:
        told[_MAX_TOLD - 1 :] = ["...", told[-1]]
    return f"{lanes} lanes: a frame is read {'; '.join(told)} data-parallel ranks"
