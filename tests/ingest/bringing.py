"""Import into a workspace and read back what is stored: helpers of this room's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rsc.config import Workspace
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_source
from rsc.ingest.job import ImportResult
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.review.policy import default_policy, policy_to_toml
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Ragged

POLICY = policy_to_toml(default_policy(single_person=True))
SAFE = policy_to_toml(
    default_policy(single_person=True).model_copy(update={"safeguard": "made up by a test"})
)


def bring_in(workspace: Workspace, source: Path | str, **settings: Any) -> ImportResult:
    """`settings` are those of `import_source` and of ImportOptions together."""
    options = {key: settings.pop(key) for key in list(settings) if key in ImportOptions.model_fields}
    call = {"name": "posts", "policy": POLICY, "author": "ada", **settings}
    return import_source(source, workspace=workspace, options=ImportOptions(**options), **call)


def stored(
    workspace: Workspace, split: str, *, name: str = "posts", version: int | None = None
) -> list[dict[str, Any]]:
    """Every sample of a split as Python values."""
    dataset = Dataset.open(workspace.data, name=name, version=version)
    provider = LocalKeyProvider(workspace.keys)
    rows: list[dict[str, Any]] = []
    with open_envelope(provider, dataset.envelope(), context=data_key_context(name)) as key:
        reader = dataset.split(split, key=key)
        kinds = {field.name: field.kind for field in reader.schema.fields}
        for columns in reader.iterate():
            count = len(next(iter(columns.values())))
            rows += [{n: value(columns[n], i, kinds[n]) for n in columns} for i in range(count)]
        reader.close()
    return rows


def value(column: Any, index: int, kind: str) -> Any:
    item = column[index]
    if isinstance(column, Ragged) and kind == "string":
        return bytes(item).decode()
    return bytes(item) if kind == "bytes" else item.tolist()


def posts(path: Path, count: int = 200) -> Path:
    with path.open("w") as file:
        for number in range(count):
            text = (
                f"post {number}: write to user{number % 7}@example.org today"
                if number % 3 == 0
                else f"post {number}"
            )
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    return path
