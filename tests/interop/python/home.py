"""What a client keeps on disk, and its marks (docs/formats.md, Marks)."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from formats import Cbor, Snapshot, Timestamp, cbor, in_parts, must, raw_digest
from trust import AHEAD_MAX, Trust, spki_of

DAY = 86_400


@dataclass
class Marks:
    """The highest that was seen and verified."""

    epoch: int = 0
    version: int = 0
    issued: int = 0
    filesets: dict[str, int] = field(default_factory=dict)
    snapshot: bytes | None = None

    @classmethod
    def decode(cls, data: bytes) -> Marks:
        """From the file."""
        found = Cbor(data).item()
        must(cbor(found) == data, "marks: the file is damaged")
        snapshot = raw_digest(found[4], "marks") if 4 in found else None
        return cls(found[0], found[1], found[2], dict(in_parts(found[3], 2, "marks")), snapshot)

    def encode(self) -> bytes:
        """For the file."""
        flat = [part for name in sorted(self.filesets) for part in (name, self.filesets[name])]
        found = {0: self.epoch, 1: self.version, 2: self.issued, 3: flat}
        snapshot = {} if self.snapshot is None else {4: b"\x12" + self.snapshot}
        return cbor(found | snapshot)

    def must_allow(self, timestamp: Timestamp, now: int) -> None:
        """The checks of a timestamp, in their order."""
        told, seen = (timestamp.epoch, timestamp.version), (self.epoch, self.version)
        must(told >= seen, "timestamp: rollback")
        same = timestamp.snapshot == self.snapshot
        must(told != seen or self.snapshot is None or same, "timestamp: fork")
        life = timestamp.expires - timestamp.issued
        must(0 < life <= 7 * DAY, "timestamp: lifetime")
        must(timestamp.issued <= now + AHEAD_MAX, "timestamp: future")
        must(now < timestamp.expires, "timestamp: expired")

    def must_allow_filesets(self, timestamp: Timestamp, snapshot: Snapshot) -> None:
        """No fileset goes back, unless the origin says that it was restored."""
        for name, fileset in snapshot.filesets.items():
            low = fileset.current < self.filesets.get(name, 0)
            must(timestamp.epoch > self.epoch or not low, "snapshot: fileset rollback")

    def raised(self, timestamp: Timestamp, snapshot: Snapshot) -> Marks:
        """The marks after both have passed all checks."""
        listed = {name: fileset.current for name, fileset in snapshot.filesets.items()}
        return Marks(
            timestamp.epoch,
            timestamp.version,
            max(self.issued, timestamp.issued),
            self.filesets | listed,
            timestamp.snapshot,
        )


class Home:
    """A folder with a client's identity and all that it has verified."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "crls").mkdir(parents=True, exist_ok=True)
        (folder / "cas").mkdir(exist_ok=True)
        marks = self.read("marks")
        self.marks = Marks() if marks is None else Marks.decode(marks)

    def path(self, name: str) -> Path:
        """Where something lies."""
        return self.folder / name

    def read(self, name: str) -> bytes | None:
        """A file, if it is there."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file durably; nobody else may read it."""
        target = self.path(name)
        temporary = target.with_name(f"{target.name}.new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def now(self) -> int:
        """The system's clock, and never less than somebody trusted has vouched for."""
        return max(int(time.time()), self.marks.issued)

    def trust(self) -> Trust:
        """Whom it believes."""
        root = self.read("root.der")
        must(root is not None, "home: it has not enrolled")
        assert root is not None
        trust = Trust(root, self.now)
        for ca in sorted(self.path("cas").iterdir()):
            trust.learn(ca.read_bytes())
        for issuer in trust.issuers():
            kept = self.read(f"crls/{spki_of(issuer).hex()}")
            if kept is not None:
                trust.take_list(issuer, kept)
        return trust

    def keep_cas(self, trust: Trust) -> None:
        """Writes the issuing CAs down."""
        for name, ca in trust.cas.items():
            if self.read(f"cas/{name.hex()}") is None:
                self.write(f"cas/{name.hex()}", ca.public_bytes(Encoding.DER))
