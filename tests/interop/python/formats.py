"""The bytes of docs/formats.md: deterministic CBOR, digests, packs, locators, statements."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard


class Refused(Exception):
    """Something that was received breaks a rule; begins with the name of what was checked."""


def must(holds: bool, check: str) -> None:
    """Fails with the name of the check unless it holds."""
    if not holds:
        raise Refused(check)


# Digests.


def sha256(data: bytes) -> bytes:
    """The raw form of a digest."""
    return hashlib.sha256(data).digest()


def text_form(digest: bytes) -> str:
    """The form in paths and output, of a raw digest."""
    return f"sha256:{digest.hex()}"


def raw_digest(value: Any, what: str) -> bytes:
    """The raw form, of the binary one."""
    good = isinstance(value, bytes) and len(value) == 33 and value[0] == 0x12
    must(good, f"{what}: not a digest")
    return bytes(value[1:])


# CBOR. Depth, as deep as any document goes: a map, and arrays three deep.

DEPTH_MAX = 5


class Cbor:
    """Reads the deterministic subset (RFC 8949, 4.2.1), item by item."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def ended(self) -> bool:
        """Whether nothing is left."""
        return self.at == len(self.data)

    def take(self, length: int) -> bytes:
        """The next bytes as they stand."""
        must(self.at + length <= len(self.data), "cbor: it ends early")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self) -> tuple[int, int]:
        """Major type and argument, in its shortest form."""
        first = self.take(1)[0]
        major, short = first >> 5, first & 31
        if short < 24 or major == 7:
            return major, short
        must(short <= 27, "cbor: an indefinite length")
        width = 1 << (short - 24)
        argument = int.from_bytes(self.take(width), "big")
        least = 24 if width == 1 else 1 << (4 * width)
        must(argument >= least, "cbor: not the shortest form")
        return major, argument

    def item(self, depth: int = 0) -> Any:
        """The next item."""
        must(depth <= DEPTH_MAX, "cbor: too deep")
        major, argument = self.head()
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return self.take(argument)
        if major == 3:
            return self.text(argument)
        if major == 4:
            must(argument <= len(self.data), "cbor: an array longer than its document")
            return [self.item(depth + 1) for _ in range(argument)]
        if major == 5:
            return self.map(argument, depth)
        must(major == 7 and argument in (20, 21), "cbor: a type that is not used")
        return argument == 21

    def text(self, length: int) -> str:
        """A text of that many bytes."""
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("cbor: not UTF-8") from error

    def map(self, pairs: int, depth: int) -> dict[int, Any]:
        """A map with ascending integer keys."""
        found: dict[int, Any] = {}
        last = -1
        for _ in range(pairs):
            major, key = self.head()
            must(major == 0 and key > last, "cbor: keys that do not ascend")
            found[key] = self.item(depth + 1)
            last = key
        return found


def cbor_head(major: int, argument: int) -> bytes:
    """Major type and argument in the shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    width = next(width for width in (1, 2, 4, 8) if argument < 1 << (8 * width))
    short = {1: 24, 2: 25, 4: 26, 8: 27}[width]
    return bytes([major << 5 | short]) + argument.to_bytes(width, "big")


def cbor(value: Any) -> bytes:
    """A value in its one form."""
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(cbor(item) for item in value)
    pairs = b"".join(cbor(key) + cbor(value[key]) for key in sorted(value))
    return cbor_head(5, len(value)) + pairs


def document(data: bytes, what: str, *kinds: type) -> list[Any]:
    """The values of a map whose keys are exactly 0, 1, 2 and so on, of those kinds."""
    reader = Cbor(data)
    found = reader.item()
    must(reader.ended(), f"{what}: something follows")
    must(isinstance(found, dict) and list(found) == list(range(len(kinds))), f"{what}: keys")
    for key, kind in enumerate(kinds):
        # A bool is an int to Python, and to nobody else.
        must(type(found[key]) is kind, f"{what}: the type of key {key}")
    return list(found.values())


def in_parts(flat: list[Any], parts: int, what: str) -> Iterator[tuple[Any, ...]]:
    """The items of a list that was written as one flat array."""
    must(len(flat) % parts == 0, f"{what}: a list with a part missing")
    return zip(*[iter(flat)] * parts, strict=True)


def must_be_natural(value: Any, what: str, most: int = (1 << 64) - 1) -> int:
    """A number from 0 up."""
    must(type(value) is int and 0 <= value <= most, f"{what}: not a number in range")
    return int(value)


@dataclass(frozen=True)
class Chunk:
    """A chunk by its name."""

    id: bytes
    length: int


def chunk_list(flat: Any, what: str, longest: int) -> list[Chunk]:
    """Chunks as indexes and index roots list them."""
    must(isinstance(flat, list), f"{what}: no list of chunks")
    chunks = []
    for name, length in in_parts(flat, 2, what):
        must(must_be_natural(length, what, longest) > 0, f"{what}: an empty chunk")
        chunks.append(Chunk(raw_digest(name, what), length))
    return chunks


# Packs.

HEADER_MIN, HEADER_MAX, PACK_MAX, MIB = 24, 345_112, 8 << 20, 1 << 20


@dataclass(frozen=True)
class Frame:
    """An entry of a pack's frame table, with what follows from the order of things."""

    codec: int
    stored: range
    digest: bytes
    chunks: list[Chunk]

    def plain_length(self) -> int:
        """Bytes of its chunks together."""
        return sum(chunk.length for chunk in self.chunks)

    def unpack(self, pack: bytes) -> list[bytes]:
        """The chunks' bytes, each checked."""
        stored = pack[self.stored.start : self.stored.stop]
        must(sha256(stored) == self.digest, "frame: the digest")
        plain = stored if self.codec == 0 else unzstd(stored, self.plain_length())
        cut, at = [], 0
        for chunk in self.chunks:
            data = plain[at : at + chunk.length]
            must(sha256(data) == chunk.id, "chunk: the digest, and its author is to blame")
            cut.append(data)
            at += chunk.length
        return cut


def unzstd(stored: bytes, length: int) -> bytes:
    """Exactly `length` bytes out of one zstd frame."""
    try:
        stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stored))
        # One more than it may be, and never more than that.
        plain = stream.read(length + 1)
    except zstandard.ZstdError as error:
        raise Refused(f"frame: cannot be unpacked: {error}") from error
    must(len(plain) == length, "frame: the plain length")
    return plain


def pack_frames(pack: bytes, pack_id: bytes, header_length: int) -> list[Frame]:
    """Verifies a pack's header by all its rules, and returns its frames."""
    must(len(pack) >= header_length >= HEADER_MIN, "pack header: the length")
    header = pack[:header_length]
    must(sha256(header) == pack_id, "pack header: the digest")
    must(header[:8] == b"LARDPAK\x01", "pack header: the magic")
    numbers = [int.from_bytes(header[at : at + 4], "big") for at in range(8, 24, 4)]
    length, total, frames, chunks = numbers
    must(length == header_length == 24 + 41 * frames + 37 * chunks, "pack header: its length")
    must(1 <= frames <= 1024 and frames <= chunks <= 8192, "pack header: the counts")
    must(total == len(pack) <= PACK_MAX, "pack header: the total length")
    table = pack_chunks(header[24 + 41 * frames :])
    found, chunk_at, at = [], 0, length
    for entry in (header[24 + 41 * n : 65 + 41 * n] for n in range(frames)):
        count = int.from_bytes(entry[1:5], "big")
        stored = int.from_bytes(entry[5:9], "big")
        own = table[chunk_at : chunk_at + count]
        must(count >= 1 and len(own) == count, "pack header: a frame's chunks")
        frame = Frame(entry[0], range(at, at + stored), entry[9:], own)
        must_be_in_order(frame)
        found.append(frame)
        chunk_at, at = chunk_at + count, at + stored
    must(chunk_at == chunks and at == total, "pack header: the sums")
    return found


def pack_chunks(table: bytes) -> list[Chunk]:
    """A pack's chunk table."""
    entries = [table[at : at + 37] for at in range(0, len(table), 37)]
    chunks = []
    for entry in entries:
        length = int.from_bytes(entry[33:], "big")
        must(1 <= length <= MIB, "pack header: a chunk's length")
        chunks.append(Chunk(raw_digest(entry[:33], "pack header"), length))
    return chunks


def must_be_in_order(frame: Frame) -> None:
    """A frame's own rules."""
    stored, plain = len(frame.stored), frame.plain_length()
    must(frame.codec in (0, 1), "pack header: a codec that is not known")
    must(1 <= stored <= MIB and 1 <= plain <= MIB, "pack header: a frame's length")
    must(frame.codec != 0 or stored == plain, "pack header: a raw frame's length")


# What is named by digest alone, and what is signed.


@dataclass(frozen=True)
class IndexRoot:
    """Names an index."""

    size: int
    records: int
    chunks: list[Chunk]

    @classmethod
    def decode(cls, data: bytes) -> IndexRoot:
        """By all its rules."""
        what = "index root"
        version, size, records, profile, flat = document(data, what, int, int, int, str, list)
        must(version == 1 and profile == "fastcdc2020-4-16-64-n1", f"{what}: version or profile")
        chunks = chunk_list(flat, what, 64 << 10)
        must(len(chunks) <= 262_144, f"{what}: too many chunks")
        must(sum(chunk.length for chunk in chunks) == size, f"{what}: the sum of the lengths")
        return cls(size, must_be_natural(records, what), chunks)


@dataclass(frozen=True)
class PackPlace:
    """A pack as a locator names it."""

    id: bytes
    header_length: int
    length: int


@dataclass(frozen=True)
class Locator:
    """Where the chunks of one revision lie."""

    deployment: str
    fileset: str
    revision: int
    index_root: bytes
    created: int
    index_packs: int
    packs: list[PackPlace]
    runs: list[tuple[int, int, int]]

    @classmethod
    def decode(cls, data: bytes) -> Locator:
        """By all its rules."""
        what = "locator"
        found = document(data, what, str, str, int, bytes, int, int, list, list)
        packs = []
        for name, header, total in in_parts(found[6], 3, what):
            must_be_natural(header, what, HEADER_MAX)
            must_be_natural(total, what, PACK_MAX)
            packs.append(PackPlace(raw_digest(name, what), header, total))
        runs = []
        for pack, first, count in in_parts(found[7], 3, what):
            must(must_be_natural(pack, what) < len(packs), f"{what}: a pack that is not there")
            must(type(count) is int and count != 0, f"{what}: an empty run")
            runs.append((pack, must_be_natural(first, what, 8191), count))
        must(0 <= found[5] <= len(packs), f"{what}: its index packs")
        root = raw_digest(found[3], what)
        return cls(found[0], found[1], found[2], root, found[4], found[5], packs, runs)

    def places(self) -> Iterator[tuple[int, int]]:
        """Pack and chunk of each occurrence, in order."""
        for pack, first, count in self.runs:
            for n in range(abs(count)):
                yield pack, first + (n if count > 0 else 0)


@dataclass(frozen=True)
class Revision:
    """What one revision of a fileset is."""

    deployment: str
    fileset: str
    number: int
    index_root: bytes
    index_root_bytes: int
    size: int
    paths: int
    created: int

    @classmethod
    def decode(cls, data: bytes) -> Revision:
        """By all its rules."""
        found = document(data, "revision", str, str, int, bytes, int, int, int, int)
        found[3] = raw_digest(found[3], "revision")
        must(found[2] >= 1 and found[4] <= 16 << 20, "revision: a number out of range")
        return cls(*found)


@dataclass(frozen=True)
class Fileset:
    """A fileset in a snapshot: its current revision, and of each kept one what names it."""

    current: int
    revisions: dict[int, tuple[bytes, bytes]]


@dataclass(frozen=True)
class Snapshot:
    """All filesets at one moment."""

    deployment: str
    created: int
    filesets: dict[str, Fileset]

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """By all its rules."""
        deployment, created, listed, sites = document(data, "snapshot", str, int, list, list)
        must(sites == [], "snapshot: sites are not known")
        filesets = {}
        for entry in listed:
            must(isinstance(entry, list) and len(entry) == 3, "snapshot: a fileset")
            name, current, flat = entry
            revisions = {
                must_be_natural(number, "snapshot"): (
                    raw_digest(statement, "snapshot"),
                    raw_digest(locator, "snapshot"),
                )
                for number, statement, locator in in_parts(flat, 3, "snapshot")
            }
            rising = list(revisions) == sorted(revisions) and 3 * len(revisions) == len(flat)
            must(rising and current in revisions, "snapshot: its revisions")
            filesets[name] = Fileset(current, revisions)
        names = [entry[0] for entry in listed]
        must(names == sorted(set(names)), "snapshot: the order of filesets")
        return cls(deployment, created, filesets)


@dataclass(frozen=True)
class Timestamp:
    """How things stand now."""

    deployment: str
    epoch: int
    version: int
    issued: int
    expires: int
    snapshot: bytes
    document: bytes
    least_crls: dict[bytes, int]

    @classmethod
    def decode(cls, data: bytes) -> Timestamp:
        """By all its rules."""
        found = document(data, "timestamp", str, int, int, int, int, bytes, bytes, list)
        found[5] = raw_digest(found[5], "timestamp")
        found[6] = raw_digest(found[6], "timestamp")
        least = dict(in_parts(found[7], 2, "timestamp"))
        good = all(type(issuer) is bytes and len(issuer) == 32 for issuer in least)
        must(good and list(least) == sorted(least), "timestamp: its issuers")
        for number in least.values():
            must_be_natural(number, "timestamp")
        found[7] = least
        return cls(*found)


@dataclass(frozen=True)
class Party:
    """An origin or a booster, and where it may be."""

    id: str
    content: list[str]
    enrol: list[str]


@dataclass(frozen=True)
class Deployment:
    """Who serves."""

    deployment: str
    version: int
    created: int
    roots: list[bytes]
    origin: Party
    boosters: list[Party]

    @classmethod
    def decode(cls, data: bytes) -> Deployment:
        """By all its rules."""
        what = "deployment document"
        found = document(data, what, str, int, int, list, list, list, list)
        must(len(found[4]) == 3 and len(found[6]) == 2, f"{what}: its origin or its versions")
        must(all(len(booster) == 4 for booster in found[5]), f"{what}: a booster")
        boosters = [Party(*booster[:3]) for booster in found[5]]
        origin = Party(*found[4])
        for party in [origin, *boosters]:
            texts = [party.id, *party.content, *party.enrol]
            must(all(isinstance(text, str) for text in texts), f"{what}: a party")
        return cls(found[0], found[1], found[2], found[3], origin, boosters)
