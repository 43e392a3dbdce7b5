"""How a client gets its certificate: EST with a join string (docs/protocol.md, Enrolment)."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from cryptography.x509.oid import NameOID

from formats import Refused, must
from home import Home
from trust import CRL_MAX, Trust, load, spki_of
from wire import Answer, Source, Unavailable, believing_nobody, first

BAG_MAX = 64 << 10
CACERTS = "/.well-known/est/cacerts"
ENROL = "/.well-known/est/client/simpleenroll"


@dataclass(frozen=True)
class Join:
    """All that a new party is told."""

    pin: bytes
    token: str | None
    addresses: list[str]

    @classmethod
    def parse(cls, text: str) -> Join:
        """`larder1.PIN[.TOKEN]@HOST:PORT[,HOST:PORT...]`."""
        secret, at, addresses = text.strip().partition("@")
        parts, listed = secret.split("."), addresses.split(",")
        must(bool(at) and parts[0] == "larder1" and len(parts) in (2, 3), "join: the form")
        must(1 <= len(listed) <= 8, "join: the addresses")
        pin = base64.urlsafe_b64decode(parts[1] + "=")
        must(len(pin) == 32, "join: the pin")
        return cls(pin, parts[2] if len(parts) == 3 else None, listed)


def unbag(body: bytes) -> list[bytes]:
    """The certificates of a PKCS#7 in base64."""
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
        certs = pkcs7.load_der_pkcs7_certificates(der)
    except ValueError as error:
        raise Refused(f"bag: {error}") from error
    must(1 <= len(certs) <= 16, "bag: the number of certificates")
    return [cert.public_bytes(Encoding.DER) for cert in certs]


def meet(join: Join) -> tuple[bytes, list[bytes]]:
    """First contact: the root that has the pinned key, and everything else in the bag."""
    # Nothing is said but what is asked for: no token, no request, no name.
    stranger = first(join.addresses, believing_nobody)
    try:
        bag = unbag(stranger.ask("GET", CACERTS, 2 * BAG_MAX).body)
    finally:
        stranger.close()
    for cert in bag:
        if spki_of(load(cert)) == join.pin:
            return cert, bag
    raise Refused("pin: no certificate in the bag has the pinned key")


def fetch_lists(trust: Trust, home: Home, source: Source) -> None:
    """Every list that is missing or has run out, from anybody who has it."""
    for issuer in trust.issuers():
        name = spki_of(issuer).hex()
        if trust.wants(spki_of(issuer)):
            der = trust.take_list(issuer, source.get(f"/v1/crl/{name}", CRL_MAX))
            home.write(f"crls/{name}", der)


def key_of(home: Home) -> ec.EllipticCurvePrivateKey:
    """The client's own key, made at first use."""
    pem = home.read("key.pem")
    if pem is None:
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        home.write("key.pem", pem)
    key = serialization.load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def request_of(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A request that claims an id, as EST wants it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return base64.b64encode(request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def ask_until_issued(source: Source, join: Join, request: bytes, patience: float) -> Answer:
    """Asks, and asks again for as long as an operator has to look at it."""
    headers = {
        "Content-Type": "application/pkcs10",
        "Content-Transfer-Encoding": "base64",
    }
    if join.token is not None:
        secret = base64.b64encode(f"larder:{join.token}".encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    until = time.monotonic() + patience
    while True:
        try:
            answer = source.ask("POST", ENROL, 2 * BAG_MAX, request, headers)
            if answer.status == 200:
                return answer
            wait, told = int(answer.headers.get("Retry-After", "60")), "waits for an operator"
        except Unavailable as error:
            if error.status not in (429, 503):
                raise
            wait, told = error.wait, str(error)
        # Asked again at the very end, too, if that comes before the time that was said.
        wait_here = min(wait, until - time.monotonic())
        must(wait_here > 0, f"enrol: nothing was issued in time: {told}")
        source.close()
        time.sleep(wait_here)


def chain_of(trust: Trust, leaf: bytes) -> bytes:
    """A certificate and that of its issuing CA, as a server wants to see them."""
    ca = trust.issuer_of(load(leaf))
    return b"".join(cert.public_bytes(Encoding.PEM) for cert in (load(leaf), ca))


def enrol(join: Join, home: Home, name: str, patience: float) -> dict[str, object]:
    """From a join string to a certificate, everything written down."""
    root, bag = meet(join)
    trust = Trust(root, home.now)
    for cert in bag:
        trust.learn(cert)
    origin = Source(trust, "origin", join.addresses, None, None, "any")
    key = key_of(home)
    answer = ask_until_issued(origin, join, request_of(key, name), patience)
    [leaf] = unbag(answer.body)
    who = trust.judge(load(leaf), home.now(), ("client",))
    same = load(leaf).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ) == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    must(same, "enrol: the certificate is for another key")
    home.write("root.der", root)
    home.keep_cas(trust)
    home.write("enrol.addresses", ",".join(join.addresses).encode())
    key_pem = home.read("key.pem") or b""
    fetch_lists(trust, home, origin)
    document = origin.get("/v1/deployment", 16 << 20)
    origin.close()
    home.write("deployment", document)
    home.write("own.pem", chain_of(trust, leaf) + key_pem)
    return {"deployment": trust.deployment, "id": who.id, "role": who.role}
