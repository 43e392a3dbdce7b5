"""Puts a tree together beside its target, and lets nobody see it before it is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from pathlib import Path

from formats import Chunk, must
from index import FILE, FOLDER, HARD_LINK, SYMLINK, Entry
from pulling import Plan, Session, chunk_at

# One place to write to: which file, where in it, and what.
Write = tuple[Path, int, int, Chunk]


def install(session: Session, fileset: str, plan: Plan, target: Path) -> None:
    """Fetches what a plan needs, and installs it."""
    must(not os.path.lexists(target), f"target: {target} is there already")
    staging = target.with_name(f"{target.name}.larder-new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    make(staging, plan.entries)
    for pack, writes in sorted(by_pack(staging, plan).items()):
        place = plan.locator.packs[pack]
        unpacked = plan.brought.get(pack) or session.unpacked(fileset, place)
        for path, offset, n, chunk in writes:
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(chunk_at(unpacked, n, chunk))
    must_be_whole(staging, plan.entries)
    dress(staging, plan.entries)
    staging.rename(target)


def make(staging: Path, entries: list[Entry]) -> None:
    """Every path, without content. Folders come before what lies in them."""
    for entry in entries:
        path = staging / entry.path
        if entry.kind == FOLDER:
            path.mkdir(mode=0o700)
        elif entry.kind == FILE:
            path.touch(mode=0o600, exist_ok=False)
        elif entry.kind == SYMLINK:
            path.symlink_to(entry.target)
        else:
            os.link(staging / entry.target, path, follow_symlinks=False)


def by_pack(staging: Path, plan: Plan) -> dict[int, list[Write]]:
    """What has to be written out of each pack."""
    writes = defaultdict[int, list[Write]](list)
    places = iter(plan.places)
    for entry in plan.entries:
        offset = 0
        for chunk in entry.chunks:
            pack, n = next(places)
            writes[pack].append((staging / entry.path, offset, n, chunk))
            offset += chunk.length
    return writes


def must_be_whole(staging: Path, entries: list[Entry]) -> None:
    """The digest of each file that has one of its own."""
    for entry in entries:
        if entry.digest is not None:
            with open(staging / entry.path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            must(digest == entry.digest, f"file: the digest of {entry.path}")


def dress(staging: Path, entries: list[Entry]) -> None:
    """Modes and times, from within: what is done in a folder changes its time."""
    for entry in reversed(entries):
        path = staging / entry.path
        if entry.kind == HARD_LINK:
            continue
        if entry.kind != SYMLINK:
            path.chmod(entry.mode)
        os.utime(path, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
