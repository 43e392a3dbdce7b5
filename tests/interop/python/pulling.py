"""A fileset from whoever has it, verified from the timestamp down (docs/protocol.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from enrolment import fetch_lists
from formats import (
    Chunk,
    Deployment,
    Frame,
    IndexRoot,
    Locator,
    PackPlace,
    Refused,
    Revision,
    Snapshot,
    Timestamp,
    must,
    pack_frames,
    sha256,
    text_form,
)
from home import Home
from index import Entry, read_index
from trust import Kind, Trust
from wire import Source, Unavailable

T = TypeVar("T")

MIB = 1 << 20
TIMESTAMP = Kind("timestamp", 16 << 10, Timestamp.decode, created=None)
SNAPSHOT = Kind("snapshot", 16 * MIB, Snapshot.decode)
REVISION = Kind("revision", 4 << 10, Revision.decode)
LOCATOR = Kind("locator", 64 * MIB, Locator.decode)
DEPLOYMENT = Kind("deployment", 8 * MIB, Deployment.decode)
INDEX_ROOT_MAX = 16 * MIB

Unpacked = tuple[list[bytes], list[Chunk]]


@dataclass
class Session:
    """Sources in the order in which they are asked; who fails a check is asked no more."""

    home: Home
    trust: Trust
    sources: list[Source]
    pack_bytes: Counter[str] = field(default_factory=Counter)
    bypasses: list[dict[str, str]] = field(default_factory=list)

    def ask(self, what: Callable[[Source], T]) -> T:
        """From the first source that gives it as it should be."""
        while self.sources:
            try:
                return what(self.sources[0])
            except (Refused, Unavailable, ValueError, TypeError) as error:
                # The last two: something that was received is not even of the right type.
                source = self.sources.pop(0)
                source.close()
                self.bypasses.append({"source": str(source), "reason": str(error)})
        raise Unavailable(f"nobody is left to ask: {self.bypasses}")

    def open(self, kind: Kind[T], source: Source, path: str, named: bytes | None = None) -> T:
        """A statement that counts."""
        envelope = source.get(path, kind.envelope_max())
        return self.trust.open(kind, envelope, named)

    def named(self, kind: Kind[T], where: str, digest: bytes) -> T:
        """A statement that another one names."""
        path = f"/v1/{where}/{text_form(digest)}"
        return self.ask(lambda source: self.open(kind, source, path, digest))

    def index_root(self, digest: bytes) -> IndexRoot:
        """An index root, which its digest proves."""

        def fetch(source: Source) -> IndexRoot:
            data = source.get(f"/v1/statements/{text_form(digest)}", INDEX_ROOT_MAX)
            must(sha256(data) == digest, "index root: the digest")
            return IndexRoot.decode(data)

        return self.ask(fetch)

    def state(self) -> tuple[Timestamp, Snapshot]:
        """How things stand, held against the marks and written down."""

        def fetch(source: Source) -> tuple[Timestamp, Snapshot]:
            timestamp = self.open(TIMESTAMP, source, "/v1/timestamp")
            self.home.marks.must_allow(timestamp, self.home.now())
            path = f"/v1/snapshots/{text_form(timestamp.snapshot)}"
            snapshot = self.open(SNAPSHOT, source, path, timestamp.snapshot)
            self.home.marks.must_allow_filesets(timestamp, snapshot)
            self.trust.least = timestamp.least_crls
            self.home.keep_cas(self.trust)
            fetch_lists(self.trust, self.home, source)
            # A new list may name their signer.
            again = self.open(SNAPSHOT, source, path, timestamp.snapshot)
            return timestamp, again

        timestamp, snapshot = self.ask(fetch)
        self.home.marks = self.home.marks.raised(timestamp, snapshot)
        self.home.write("marks", self.home.marks.encode())
        return timestamp, snapshot

    def document(self, timestamp: Timestamp) -> None:
        """Keeps the deployment document that the timestamp names, or one made since."""
        held = self.home.read("deployment") or b""
        if sha256(held) == timestamp.document:
            return

        def fetch(source: Source) -> tuple[bytes, int]:
            envelope = source.get("/v1/deployment", DEPLOYMENT.envelope_max())
            found = self.trust.open(DEPLOYMENT, envelope)
            # The one that is named may be gone: whoever answers has only the newest.
            named = sha256(envelope) == timestamp.document
            must(named or found.created >= timestamp.issued, "deployment document: an old one")
            return envelope, found.version

        envelope, version = self.ask(fetch)
        # A booster's timestamp may be older than what the origin has told us at enrolment.
        if version > self.trust.open(DEPLOYMENT, held).version:
            self.home.write("deployment", envelope)

    def pack(self, fileset: str, place: PackPlace) -> tuple[bytes, list[Frame]]:
        """A pack whose header and frames are what its name says."""

        def verified(source: Source, again: bool) -> tuple[bytes, list[Frame]]:
            path = f"/v1/filesets/{fileset}/packs/{place.id.hex()}"
            pack = source.get(path, place.length, again)
            self.pack_bytes[str(source)] += len(pack)
            must(len(pack) == place.length, "pack: the length")
            frames = pack_frames(pack, place.id, place.header_length)
            for frame in frames:
                stored = pack[frame.stored.start : frame.stored.stop]
                must(sha256(stored) == frame.digest, "frame: the digest")
            return pack, frames

        def fetch(source: Source) -> tuple[bytes, list[Frame]]:
            try:
                return verified(source, again=False)
            except Refused:
                # Asked once more to verify what it has, before we go round it.
                return verified(source, again=True)

        return self.ask(fetch)

    def unpacked(self, fileset: str, place: PackPlace) -> Unpacked:
        """The chunks of a pack, and what they are called."""
        pack, frames = self.pack(fileset, place)
        # What is wrong from here on is the author's doing: no other source has it right.
        data = [chunk for frame in frames for chunk in frame.unpack(pack)]
        return data, [chunk for frame in frames for chunk in frame.chunks]


@dataclass
class Plan:
    """What a revision consists of, and where each chunk lies."""

    revision: Revision
    locator: Locator
    entries: list[Entry]
    # Pack and chunk of each occurrence in the files, in the order of the index.
    places: list[tuple[int, int]]
    # What the index packs brought, which may hold chunks of files, too.
    brought: dict[int, Unpacked]


def plan(session: Session, fileset: str) -> Plan:
    """Verifies a fileset's current revision down to its index."""
    timestamp, snapshot = session.state()
    session.document(timestamp)
    found = snapshot.filesets.get(fileset)
    if found is None:
        raise Refused(f"snapshot: there is no fileset {fileset}")
    statement, named_locator = found.revisions[found.current]
    revision = session.named(REVISION, "statements", statement)
    locator = session.named(LOCATOR, "statements", named_locator)
    for said in (revision, locator):
        must(said.fileset == fileset, "revision: of another fileset")
        must(said.index_root == revision.index_root, "locator: of another index root")
    must(revision.number == locator.revision == found.current, "revision: another number")
    root = session.index_root(revision.index_root)
    index_packs = enumerate(locator.packs[: locator.index_packs])
    brought = {at: session.unpacked(fileset, place) for at, place in index_packs}
    index, places = b"", locator.places()
    for chunk, (pack, n) in zip(root.chunks, places, strict=False):
        must(pack in brought, "locator: a chunk of the index lies in no index pack")
        index += chunk_at(brought[pack], n, chunk)
    must(len(index) == root.size, "locator: too few places for the index")
    entries = read_index(index, root.records)
    must(len(entries) == revision.paths, "revision: its paths")
    must(sum(entry.size for entry in entries) == revision.size, "revision: its bytes")
    needed = sum(len(entry.chunks) for entry in entries)
    rest = [place for _, place in zip(range(needed), places, strict=False)]
    must(len(rest) == needed and next(places, None) is None, "locator: the number of places")
    return Plan(revision, locator, entries, rest, brought)


def chunk_at(unpacked: Unpacked, n: int, wanted: Chunk) -> bytes:
    """A chunk at its place, which must be the one that is wanted."""
    data, names = unpacked
    must(n < len(names) and names[n] == wanted, "locator: another chunk lies there")
    return data[n]
