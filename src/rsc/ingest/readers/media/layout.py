"""What the folders and names of pictures or sounds say: split, labels, captions; and who deviates.

A file that deviates from the others is set aside with its reason; the others keep what they have. Where
the majority cannot be told from the exception the whole is refused.

    the folder that holds everything     is passed over
    train/ test/ ...                     splits, if no other folder is beside them; loose files are set aside
    class folders                        `label`, if half of a split lies in them; loose files are set aside
    a text beside each file              `text`, when at least half have one; files without are set aside
    metadata.jsonl, metadata.csv         fields of the files that they name; files not named are set aside
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.encoding import readable_name
from rsc.ingest.readers.file_tree import TreeEntry
from rsc.ingest.readers.media.metadata import Metadata
from rsc.ingest.readers.split_names import SPLIT_NAMES

_SHOWN = 12  # values of a field that a message lists


@dataclass
class Item:
    """One file: its split, the strings that its path and metadata tell, and why it is no record, if so."""

    entry: TreeEntry
    split: str | None = None
    strings: dict[str, str] = field(default_factory=dict)
    caption: TreeEntry | None = None
    refusal: str = ""

    def set_aside(self, reason: str) -> None:
        self.refusal = self.refusal or reason


@dataclass(frozen=True)
class MediaLayout:
    """Every file in order, and what the source as a whole was taken for."""

    items: list[Item]
    has_captions: bool
    taken: list[tuple[str, str]]

    @property
    def string_names(self) -> list[str]:
        return list(dict.fromkeys(name for item in self.items if not item.refusal for name in item.strings))


def lay_out(
    entries: Sequence[TreeEntry],
    *,
    texts: dict[str, TreeEntry],
    metadata: Metadata | None,
    options: ImportOptions,
) -> MediaLayout:
    """`texts` are captions by the path without suffix. Raises DataError for splits beside other folders and
    for names that do not fit the pattern, ConfigError for options that fit none."""
    items = [Item(entry) for entry in entries]
    taken: list[tuple[str, str]] = []
    depth = _wrapping(entries)
    in_splits = _take_splits(items, depth=depth, taken=taken)
    if options.label_pattern is not None:
        _take_names(items, pattern=options.label_pattern, taken=taken)
    elif metadata is None or "label" not in metadata.names:
        _take_classes(items, depth=depth + in_splits, taken=taken)
    if metadata is not None:
        _take_metadata(items, metadata=metadata, taken=taken)
    has_captions = (metadata is None or "text" not in metadata.names) and _take_captions(
        items, texts=texts, taken=taken
    )
    if options.test_where is not None:
        _take_test(items, test_where=options.test_where, taken=taken)
    return MediaLayout(items, has_captions, taken)


def stem(entry: TreeEntry) -> str:
    return entry.name.removesuffix(PurePosixPath(entry.name).suffix)


def _wrapping(entries: Sequence[TreeEntry]) -> int:
    """Folders that all files lie in, as an archive of one folder has; a split's folder is none."""
    depth = 0
    while True:
        firsts = {entry.folders[depth : depth + 1] for entry in entries}
        if len(firsts) != 1 or () in firsts or firsts.pop()[0].lower() in SPLIT_NAMES:
            return depth
        depth += 1


def _take_splits(items: Sequence[Item], *, depth: int, taken: list[tuple[str, str]]) -> bool:
    """Whether the folders at `depth` are splits. Raises DataError when some are and some are not."""
    tops = Counter(item.entry.folders[depth] for item in items if len(item.entry.folders) > depth)
    splits = [top for top in tops if top.lower() in SPLIT_NAMES]
    others = [top for top in tops if top not in splits]
    if not splits:
        return False
    if others:
        raise DataError(
            f"folder {readable_name(splits[0])!r} is named like a split, "
            f"and {readable_name(others[0])!r} beside it is not",
            hint="move what is no split out of the source, or rename a class that is called like a split",
        )
    for item in items:
        if len(item.entry.folders) > depth:
            item.split = SPLIT_NAMES[item.entry.folders[depth].lower()]
        else:
            item.set_aside(f"it lies outside the folders of the splits ({', '.join(sorted(splits))})")
    taken += [(f"folder {top}/, {tops[top]:,} files", f"split {SPLIT_NAMES[top.lower()]}") for top in splits]
    return True


def _take_classes(items: Sequence[Item], *, depth: int, taken: list[tuple[str, str]]) -> None:
    """Labels from the folders at `depth`."""
    inside = Counter(item.split for item in items if len(item.entry.folders) > depth and not item.refusal)
    everything = Counter(item.split for item in items if not item.refusal)
    labels = {item.entry.folders[depth] for item in items if len(item.entry.folders) > depth}
    if len(labels) < 2:
        return
    if not any(2 * inside[split] >= count for split, count in everything.items()):
        taken.append((f"{len(labels):,} folders, most files lie outside them", "nothing: no labels"))
        return
    for item in items:
        if len(item.entry.folders) > depth:
            item.strings["label"] = readable_name(item.entry.folders[depth])
        else:
            item.set_aside("it lies outside the class folders: it has no label")
    taken.append((f"{len(labels):,} class folders", "field label"))


def _take_names(items: Sequence[Item], *, pattern: str, taken: list[tuple[str, str]]) -> None:
    """Fields from file names. Raises DataError for a name that does not fit."""
    expression = name_pattern(pattern)
    for item in items:
        name = readable_name(PurePosixPath(item.entry.name).stem)
        match = expression.fullmatch(name)
        if match is None:
            raise DataError(
                f"{readable_name(item.entry.name)} does not fit label_pattern {pattern}",
                hint="every file name has to; import the others from a folder of their own",
            )
        item.strings |= match.groupdict()
    taken.append((f"file names as {pattern}", f"fields {', '.join(expression.groupindex)}"))


def _take_metadata(items: Sequence[Item], *, metadata: Metadata, taken: list[tuple[str, str]]) -> None:
    for item in items:
        row = metadata.rows.get(item.entry.name)
        if row is None:
            item.set_aside(f"{metadata.file} does not name it")
        elif missing := [name for name in metadata.names if name not in row]:
            item.set_aside(f"{metadata.file} has no {missing[0]!r} for it")
        else:
            item.strings |= row
    taken.append((metadata.file, f"fields {', '.join(metadata.names)}"))
    unused = len(metadata.rows.keys() - {item.entry.name for item in items})
    if unused:
        taken.append((f"{unused:,} rows of {metadata.file} without a file", "nothing"))


def _take_captions(
    items: Sequence[Item], *, texts: dict[str, TreeEntry], taken: list[tuple[str, str]]
) -> bool:
    """Whether texts beside the files are their captions."""
    kept = [item for item in items if not item.refusal]
    found = sum(stem(item.entry) in texts for item in kept)
    if not found:
        return False
    if 2 * found < len(kept):
        taken.append((f"{found:,} texts beside {len(kept):,} files: fewer than half", "nothing"))
        return False
    for item in kept:
        item.caption = texts.get(stem(item.entry))
        if item.caption is None:
            item.set_aside("it has no caption, as most of the others have")
    taken.append((f"{found:,} texts beside files of the same name", "field text"))
    return True


def _take_test(items: Sequence[Item], *, test_where: str, taken: list[tuple[str, str]]) -> None:
    """Put items into `test` by a field, the others into `train`. Raises ConfigError for all or none."""
    name, _, values = test_where.partition("=")
    kept = [item for item in items if not item.refusal]
    for item in kept:
        if name not in item.strings:
            raise ConfigError(
                f"test_where: there is no field {name!r}",
                hint=f"there are: {', '.join(item.strings) or 'none'}",
            )
        item.split = "test" if item.strings[name] in values.split(",") else "train"
    taken.append((f"files with {test_where}", "split test"))
    if {item.split for item in kept} == {"train", "test"}:
        return
    there = sorted({item.strings[name] for item in kept})
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN:,} more" if len(there) > _SHOWN else "")
    fits = "every file" if kept and kept[0].split == "test" else "no file"
    raise ConfigError(f"test_where: {test_where} fits {fits}", hint=f"{name} is one of: {shown}")


def name_pattern(text: str) -> re.Pattern[str]:
    """`{label}_{speaker}` as a regular expression; each name takes as little as it can.

    Raises ConfigError for a pattern without names, or with one twice.
    """
    pieces = re.split(r"\{([a-z][a-z0-9_]*)\}", text)
    names = pieces[1::2]
    if not names or len(set(names)) != len(names) or {"text", "path", "image", "audio"} & set(names):
        raise ConfigError(
            f"label_pattern {text!r} is not usable", hint="for example {label}_{speaker}_{index}"
        )
    return re.compile(
        "".join(f"(?P<{piece}>.+?)" if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces))
    )
