"""Calls: TLS 1.3 with certificates on both sides, and HTTP/1.1 (docs/protocol.md)."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from formats import Refused
from trust import Identity, Trust, load

WAIT_SECONDS = 30
NOBODY_KNOWN = "enrol.larder.internal"


class Unavailable(Exception):
    """No answer, or one that says no."""

    def __init__(self, told: str, status: int = 0, code: str = "", wait: int = 60) -> None:
        super().__init__(told)
        self.status, self.code, self.wait = status, code, wait


@dataclass(frozen=True)
class Answer:
    """An answer that is none of refusal."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def address_of(text: str) -> tuple[str, int]:
    """Host and port, with or without the brackets of an IPv6 address."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Connection:
    """One connection, to somebody who is known or not."""

    def __init__(self, address: str, context: ssl.SSLContext, name: str) -> None:
        self.address = address
        try:
            plain = socket.create_connection(address_of(address), timeout=WAIT_SECONDS)
            self.tls = context.wrap_socket(plain, server_hostname=name)
        except (OSError, ValueError) as error:
            raise Unavailable(f"{address}: cannot connect: {error}") from error
        self.http = http.client.HTTPConnection(name, timeout=WAIT_SECONDS)
        self.http.sock = self.tls

    def leaf(self) -> x509.Certificate:
        """What the server has shown."""
        return load(self.tls.getpeercert(binary_form=True) or b"")

    def close(self) -> None:
        """Hangs up."""
        self.http.close()

    def ask(
        self,
        method: str,
        path: str,
        most: int,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request. Raises unless the answer is good, and at most that long."""
        said = {"larder-protocol": "1", **(headers or {})}
        try:
            try:
                self.http.request(method, path, body, said)
            except OSError:
                # Why it was refused may lie there to be read.
                self.tls.recv(1)
                raise
            answer = self.http.getresponse()
            found = answer.read(most + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"{self.address}: {path}: {error!r}") from error
        if len(found) > most:
            raise Refused(f"{self.address}: {path}: the answer is too long")
        if answer.status >= 300:
            raise refusal(answer, found)
        return Answer(answer.status, answer.headers, found)


def refusal(answer: http.client.HTTPResponse, body: bytes) -> Unavailable:
    """A fault (RFC 9457), as far as it is one."""
    try:
        fault = json.loads(body)
        code, detail = str(fault["code"]), str(fault["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "", ""
    wait = answer.headers.get("Retry-After", "60")
    seconds = min(int(wait), 3600) if wait.isdigit() else 60
    told = f"{answer.status} {code}: {detail}"
    return Unavailable(told, answer.status, code, seconds)


def plain_context() -> ssl.SSLContext:
    """TLS 1.3 alone, and no resumption."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return context


def believing_nobody(address: str) -> Connection:
    """First contact: whoever answers may be anybody."""
    context = plain_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return Connection(address, context, NOBODY_KNOWN)


@dataclass
class Source:
    """Somebody to ask, who is who it should be at each request."""

    trust: Trust
    role: str
    addresses: list[str]
    # None at first contact with an origin.
    id: str | None
    # Certificate chain and key, in one PEM file.
    own: Path | None
    # Which revocation lists it takes, as in Trust.must_stand.
    need: str = "fresh"
    connection: Connection | None = None

    def __str__(self) -> str:
        return f"{self.role} {self.id or '(any)'}"

    def ask(
        self,
        method: str,
        path: str,
        most: int,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request over a connection that is kept; over a new one if that has gone."""
        kept = self.connection is not None
        try:
            return self.checked().ask(method, path, most, body, headers)
        except Unavailable as error:
            if error.status == 0:
                self.close()
            if not kept or error.status:
                raise
        return self.checked().ask(method, path, most, body, headers)

    def get(self, path: str, most: int, again: bool = False) -> bytes:
        """A body; `again` asks a cache to verify what it has."""
        headers = {"Cache-Control": "no-cache"} if again else None
        return self.ask("GET", path, most, headers=headers).body

    def close(self) -> None:
        """Hangs up."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def checked(self) -> Connection:
        """A connection to the right party, judged anew."""
        connection = self.connection or self.connect()
        try:
            self.must_be_right(connection)
        except Refused:
            connection.close()
            self.connection = None
            raise
        self.connection = connection
        return connection

    def connect(self) -> Connection:
        """To the first address that answers."""
        context = plain_context()
        context.load_verify_locations(cadata=self.trust.root.public_bytes(Encoding.DER))
        context.check_hostname = self.id is not None
        if self.own is not None:
            context.load_cert_chain(self.own)
        name = self.trust.host(self.id) if self.id is not None else NOBODY_KNOWN
        return first(self.addresses, lambda address: Connection(address, context, name))

    def must_be_right(self, connection: Connection) -> Identity:
        """Role, id and revocation: TLS has seen to the chain and to the possession of the key."""
        leaf = connection.leaf()
        who = self.trust.judge(leaf, self.trust.clock(), (self.role,))
        if self.id not in (None, who.id):
            raise Refused(f"id: {who}, want {self.id}")
        self.trust.must_stand(leaf, self.need)
        return who


def first(addresses: list[str], connect: Callable[[str], Connection]) -> Connection:
    """The first that answers."""
    last = Unavailable("there is no address")
    for address in addresses:
        try:
            return connect(address)
        except Unavailable as error:
            last = error
    raise last
