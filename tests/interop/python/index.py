"""Indexes: what a revision consists of (docs/formats.md, Index)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from formats import Cbor, Chunk, chunk_list, must, must_be_natural, raw_digest

FILE, FOLDER, SYMLINK, HARD_LINK = range(4)
# The keys of each; of a file's, the last three may be left out.
ALLOWED = {
    FILE: {0, 1, 2, 3, 4, 6, 7, 8},
    FOLDER: {0, 1, 2, 4},
    SYMLINK: {0, 1, 2, 4, 5},
    HARD_LINK: {0, 1, 2, 4, 5},
}
RECORD_MAX, CHUNKS_MAX, CHUNK_MAX = 1 << 20, 16_384, 256 << 10


@dataclass
class Entry:
    """One path."""

    path: str
    kind: int
    mode: int
    mtime: int
    size: int = 0
    target: str = ""
    digest: bytes | None = None
    chunks: list[Chunk] = field(default_factory=list)


def read_index(data: bytes, records: int) -> list[Entry]:
    """The entries of an index with that many records, by all its rules."""
    reader, entries, more, seen = Cbor(data), list[Entry](), False, 0
    while not reader.ended():
        began = reader.at
        record = reader.item()
        must(reader.at - began <= RECORD_MAX, "index: a record is too long")
        must(isinstance(record, dict), "index: a record is no map")
        seen += 1
        if seen == 1:
            must_be_head(record)
            continue
        if more:
            known = set(record) - {8}
            must(known == {7}, "index: the keys of a record that goes on")
            entries[-1].chunks += listed(record)
        else:
            entries.append(entry_of(record))
        more = goes_on(record)
    must(seen == records and seen > 0 and not more, "index: the number of records")
    must_fit_together(entries)
    return entries


def must_be_head(record: dict[int, Any]) -> None:
    """The first record says what the others are."""
    must(list(record) == [64, 65, 66, 67, 68], "index: the keys of its head")
    must(record[64] == "larder-index" and record[65] == 1, "index: the version")
    must(record[66] == [], "index: a feature that is not known")
    must(isinstance(record[67], str) and len(record[67].encode()) <= 32, "index: the system")
    must(record[68] in (0, 1), "index: the case policy")


def goes_on(record: dict[int, Any]) -> bool:
    """Whether the chunk list goes on in the next record."""
    must(record.get(8, True) is True, "index: key 8 is true or left out")
    return 8 in record


def listed(record: dict[int, Any]) -> list[Chunk]:
    """The chunks of one record."""
    if 7 not in record:
        return []
    chunks = chunk_list(record[7], "index", CHUNK_MAX)
    must(1 <= len(chunks) <= CHUNKS_MAX, "index: the chunks of a record")
    return chunks


def entry_of(record: dict[int, Any]) -> Entry:
    """An entry, as far as it can be judged alone."""
    optional = [key for key in record if key >= 128]
    short = all(type(record[key]) is bytes and len(record[key]) <= 4096 for key in optional)
    must(len(optional) <= 16 and short, "index: keys from 128 up")
    kind = must_be_natural(record.get(1), "index", HARD_LINK)
    keys = set(record) - set(optional)
    must(keys <= ALLOWED[kind], "index: a key that does not belong there")
    must(keys >= ALLOWED[kind] - {6, 7, 8}, "index: a key is missing")
    time = record[4]
    must(type(time) is int and -(1 << 63) <= time < 1 << 63, "index: a time")
    mode = must_be_natural(record[2], "index", 0o7777)
    entry = Entry(must_be_path(record[0]), kind, mode, time)
    if kind == FILE:
        entry.size = must_be_natural(record[3], "index")
        entry.chunks = listed(record)
        entry.digest = raw_digest(record[6], "index") if 6 in record else None
        must(7 in record or not {6, 8} & keys, "index: an empty file has no chunks")
    elif kind == SYMLINK:
        entry.target = must_be_target(record[5])
    elif kind == HARD_LINK:
        entry.target = must_be_path(record[5])
    return entry


def must_be_path(path: Any) -> str:
    """A path that leads nowhere but down."""
    must(isinstance(path, str), "path: no text")
    components = path.split("/")
    must(len(path.encode()) <= 4095 and len(components) <= 128, "path: too long or too deep")
    for component in components:
        must(component not in ("", ".", ".."), "path: a component that leads elsewhere")
        must(len(component.encode()) <= 255 and "\0" not in component, "path: a component")
    return str(path)


def must_be_target(target: Any) -> str:
    """What a symbolic link says."""
    must(isinstance(target, str) and "\0" not in target, "index: a link's target")
    must(1 <= len(target.encode()) <= 4095, "index: a link's target")
    return str(target)


def must_fit_together(entries: list[Entry]) -> None:
    """The rules that span records."""
    last, kinds = b"", dict[str, int]()
    for entry in entries:
        path = entry.path.encode()
        must(path > last, "index: the order of paths")
        last = path
        parent = entry.path.rpartition("/")[0]
        must(not parent or kinds.get(parent) == FOLDER, "index: a path without its folder")
        if entry.kind == HARD_LINK:
            must(kinds.get(entry.target) == FILE, "index: a hard link to no earlier file")
        kinds[entry.path] = entry.kind
        total = sum(chunk.length for chunk in entry.chunks)
        must(total == entry.size, "index: the sum of a file's chunks")
        must((entry.digest is not None) == (len(entry.chunks) > 1), "index: a file's digest")
