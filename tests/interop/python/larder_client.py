"""A client of Larder in Python, written from docs/protocol.md and docs/formats.md alone.

    larder_client.py enrol JOIN DIR [--id ID] [--patience SECONDS]
    larder_client.py pull NAME TARGET DIR [--booster ID@HOST:PORT]
    larder_client.py check-in DIR

Prints one JSON object. Its own modules beside, it needs `cryptography` and `zstandard`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
from pathlib import Path

from enrolment import BAG_MAX, CACERTS, Join, enrol, fetch_lists, unbag
from formats import Deployment, Party, Refused, text_form
from home import Home
from index import FILE
from install import install
from pulling import DEPLOYMENT, Session, plan
from trust import Trust, spki_of
from wire import Source, Unavailable

RELEASE = "python-1"
CHECK_IN_MAX = 64 << 10


def sources_of(home: Home, trust: Trust, extra: list[Party]) -> tuple[list[Source], Deployment]:
    """Boosters, then the origin, as the deployment document lists them."""
    document = trust.open(DEPLOYMENT, home.read("deployment") or b"")
    if any(trust.wants(spki_of(issuer)) for issuer in trust.issuers()):
        refresh(home, trust, document)
    own = home.path("own.pem")
    boosters = [party for party in [*extra, *document.boosters] if party.content]
    sources = [Source(trust, "booster", party.content, party.id, own) for party in boosters]
    origin = document.origin
    return [*sources, Source(trust, "origin", origin.content, origin.id, own)], document


def refresh(home: Home, trust: Trust, document: Deployment) -> None:
    """Issuing CAs, and lists that have run out, come from where anybody may ask."""
    addresses = (home.read("enrol.addresses") or b"").decode().split(",")
    addresses += document.origin.enrol
    addresses += [address for booster in document.boosters for address in booster.enrol]
    anybody = Source(trust, "origin", addresses, None, None, "any")
    for ca in unbag(anybody.get(CACERTS, 2 * BAG_MAX)):
        trust.learn(ca)
    home.keep_cas(trust)
    fetch_lists(trust, home, anybody)
    anybody.close()


def pull(name: str, target: Path, home: Home, extra: list[Party]) -> dict[str, object]:
    """Installs a fileset's current revision."""
    trust = home.trust()
    sources, _ = sources_of(home, trust, extra)
    session = Session(home, trust, sources)
    planned = plan(session, name)
    install(session, name, planned, target)
    return {
        "fileset": name,
        "revision": planned.revision.number,
        "root": text_form(planned.revision.index_root),
        "files": sum(entry.kind == FILE for entry in planned.entries),
        "bytes": planned.revision.size,
        "pack_bytes": dict(session.pack_bytes),
        "bypasses": session.bypasses,
    }


def check_in(home: Home) -> dict[str, object]:
    """Tells the origin that the device is there."""
    trust = home.trust()
    sources, _ = sources_of(home, trust, [])
    said = json.dumps({"release": RELEASE}).encode()
    headers = {"Content-Type": "application/json"}
    answer = sources[-1].ask("POST", "/v1/check-in", CHECK_IN_MAX, said, headers)
    return {
        "status": answer.status,
        "answer": json.loads(answer.body) if answer.body else None,
    }


def party(text: str) -> Party:
    """`ID@HOST:PORT`."""
    name, _, address = text.partition("@")
    return Party(name, [address], [])


def own_name() -> str:
    """What the machine is called, as far as that can be an id."""
    return re.sub("[^a-z0-9]+", "-", platform.node().lower()).strip("-")[:63] or "python"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="larder_client.py")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("enrol")
    one.add_argument("join", type=Join.parse)
    one.add_argument("dir", type=Path)
    one.add_argument("--id", default=own_name())
    one.add_argument("--patience", type=float, default=600)
    one = commands.add_parser("pull")
    one.add_argument("name")
    one.add_argument("target", type=Path)
    one.add_argument("dir", type=Path)
    one.add_argument("--booster", type=party, action="append", default=[])
    one = commands.add_parser("check-in")
    one.add_argument("dir", type=Path)
    return parser.parse_args()


def main() -> int:
    """One command."""
    asked = arguments()
    try:
        home = Home(asked.dir)
        if asked.command == "enrol":
            told = enrol(asked.join, home, asked.id, asked.patience)
        elif asked.command == "pull":
            told = pull(asked.name, asked.target, home, asked.booster)
        else:
            told = check_in(home)
    except (Refused, Unavailable, ValueError) as error:
        print(f"larder_client.py: cannot {asked.command}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
