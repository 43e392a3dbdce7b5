"""Whom to believe: certificates, revocation lists (docs/protocol.md) and envelopes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from formats import Refused, must, sha256

T = TypeVar("T")
ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)

CONTENT_SIGNING = x509.ObjectIdentifier("2.25.200721575810121502834843416378635524477")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
# What the issuing CA of a role is for, which is also what its leaves are for.
PURPOSES = {
    "origin": {SERVER, CLIENT},
    "booster": {SERVER, CLIENT},
    "client": {CLIENT},
    "signer": {CONTENT_SIGNING},
}
NAMED_BY_DNS = ("origin", "booster")
# Extensions that are looked at here: any other that is critical is refused.
UNDERSTOOD = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
}
AHEAD_MAX = 600
CERT_MAX, CRL_MAX = 8 << 10, 64 << 20


def spki_of(cert: x509.Certificate) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo: how an issuer is named, and a root pinned."""
    key = cert.public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def extension(cert: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    """An extension of a certificate, if it has it."""
    try:
        return cert.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def names_of(cert: x509.Certificate) -> tuple[list[str], list[str], int]:
    """URIs, DNS names, and how many names of any kind."""
    names = extension(cert, x509.SubjectAlternativeName)
    if names is None:
        return [], [], 0
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris, names.get_values_for_type(x509.DNSName), len(list(names))


@dataclass(frozen=True)
class Identity:
    """Who somebody is."""

    role: str
    id: str

    def __str__(self) -> str:
        return f"{self.role} {self.id}"


@dataclass(frozen=True)
class List:
    """A revocation list that has been verified."""

    crl: x509.CertificateRevocationList
    number: int

    def revokes(self, cert: x509.Certificate) -> bool:
        """Whether it names a certificate."""
        serial = cert.serial_number
        return self.crl.get_revoked_certificate_by_serial_number(serial) is not None

    def is_fresh(self, now: int, least: int) -> bool:
        """Whether it still counts."""
        until = self.crl.next_update_utc
        return until is not None and until.timestamp() > now and self.number >= least


class Trust:
    """One deployment's root, issuing CAs and lists."""

    def __init__(self, root: bytes, clock: Callable[[], int]) -> None:
        self.root = load(root)
        self.clock = clock
        self.cas: dict[bytes, x509.Certificate] = {}
        self.lists: dict[bytes, List] = {}
        self.least: dict[bytes, int] = {}
        self.deployment = deployment_of(self.root)
        must_be_ca(self.root, self.root, 1)
        must_be_in_date(self.root, clock())

    def issuers(self) -> list[x509.Certificate]:
        """All whose lists are wanted."""
        return [self.root, *self.cas.values()]

    def learn(self, der: bytes) -> None:
        """Believes an issuing CA if the root has signed it."""
        cert = load(der)
        if cert != self.root:
            must_be_ca(cert, self.root, 0)
            must(deployment_of(cert) == self.deployment, "issuing CA: another deployment")
            self.cas[spki_of(cert)] = cert

    def issuer_of(self, leaf: x509.Certificate) -> x509.Certificate:
        """The CA that has signed a leaf."""
        for ca in self.cas.values():
            if ca.subject == leaf.issuer and signed(leaf, ca):
                return ca
        raise Refused("chain: an issuer that is not known")

    def judge(self, leaf: x509.Certificate, at: int, roles: tuple[str, ...]) -> Identity:
        """Chain, purpose and role of a leaf at some time. Revocation is a matter of its own."""
        ca = self.issuer_of(leaf)
        for cert in (self.root, ca, leaf):
            must_be_in_date(cert, at)
        must_be_leaf(leaf)
        who = self.identity(leaf)
        must(who.role in roles, f"role: {who}, want {' or '.join(roles)}")
        for cert in (ca, leaf):
            usage = extension(cert, x509.ExtendedKeyUsage)
            must(usage is not None and set(usage) == PURPOSES[who.role], "chain: the purpose")
        must_be_permitted(leaf, ca)
        return who

    def identity(self, leaf: x509.Certificate) -> Identity:
        """The one name of a leaf."""
        uris, dns, names = names_of(leaf)
        place = re.escape(f"spiffe://{self.deployment}.larder.internal/")
        pattern = place + "(origin|booster|client|signer)/([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)"
        named = re.fullmatch(pattern, uris[0]) if len(uris) == 1 else None
        if named is None:
            raise Refused("name: not one URI of this deployment")
        who = Identity(named[1], named[2])
        wanted = [self.host(who.id)] if who.role in NAMED_BY_DNS else []
        must(dns == wanted and names == 1 + len(wanted), "name: the names beside the URI")
        return who

    def host(self, name: str) -> str:
        """The synthetic name of an origin or a booster."""
        return f"{name}.{self.deployment}.larder.internal"

    def must_stand(self, leaf: x509.Certificate, need: str = "fresh") -> None:
        """Neither a leaf nor its CA is revoked, by lists that are `fresh`, `held`, or as it is.

        For `held`, the issuing CA's list has to be there, of whatever age.
        """
        ca = self.issuer_of(leaf)
        judged = [(leaf, spki_of(ca)), (ca, spki_of(self.root))]
        for cert, issuer in judged:
            held = self.lists.get(issuer)
            must(held is None or not held.revokes(cert), "revocation: it is on the list")
        if need == "held":
            must(spki_of(ca) in self.lists, "revocation: the list is missing")
        for _, issuer in judged if need == "fresh" else []:
            must(not self.wants(issuer), "revocation: the list is stale or missing")

    def wants(self, issuer: bytes) -> bool:
        """Whether that issuer's list must be fetched."""
        held = self.lists.get(issuer)
        return held is None or not held.is_fresh(self.clock(), self.least.get(issuer, 0))

    def take_list(self, issuer: x509.Certificate, der: bytes) -> bytes:
        """Verifies a list, and goes by it from now on."""
        try:
            crl = x509.load_der_x509_crl(der)
        except ValueError as error:
            raise Refused(f"crl: {error}") from error
        number = must_be_a_list(crl, issuer)
        ahead = crl.last_update_utc.timestamp() - self.clock()
        must(ahead <= AHEAD_MAX, "crl: it begins in the future")
        held = self.lists.get(spki_of(issuer))
        if held is not None:
            same = held.crl.public_bytes(Encoding.DER) == der
            must(number > held.number or same, "crl: the number falls, or forks")
        self.lists[spki_of(issuer)] = List(crl, number)
        return der

    def open(self, kind: Kind[T], envelope: bytes, named: bytes | None = None) -> T:
        """The payload of a statement that counts."""
        opened = Envelope.parse(kind, envelope)
        if named is not None:
            must(sha256(envelope) == named, f"{kind.name}: the digest")
        payload = kind.decode(opened.payload)
        at = self.clock() if kind.created is None else getattr(payload, kind.created)
        for ca in opened.chain[1:]:
            if load(ca) != self.root:
                self.learn(ca)
        signer = load(opened.chain[0])
        self.judge(signer, at, ("signer",))
        opened.must_be_signed_by(signer)
        # What was signed still counts when the line has been cut for long.
        self.must_stand(signer, "held")
        deployment = getattr(payload, "deployment")  # noqa: B009
        must(deployment == self.deployment, f"{kind.name}: another deployment")
        return payload


def load(der: bytes) -> x509.Certificate:
    """A certificate."""
    must(len(der) <= CERT_MAX, "certificate: too long")
    try:
        cert = x509.load_der_x509_certificate(der)
        critical = {found.oid for found in cert.extensions if found.critical}
    except ValueError as error:
        raise Refused(f"certificate: {error}") from error
    must(critical <= UNDERSTOOD, "certificate: a critical extension that is not known")
    must(0 < cert.serial_number < 1 << 128, "certificate: its serial number")
    return cert


def signed(cert: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether that CA's key has signed it."""
    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def deployment_of(ca: x509.Certificate) -> str:
    """The deployment in a CA's name."""
    uris, _, names = names_of(ca)
    pattern = r"spiffe://([a-z0-9]{1,32})\.larder\.internal"
    named = re.fullmatch(pattern, uris[0]) if names == 1 and uris else None
    if named is None:
        raise Refused("name: a CA's is not a deployment")
    return named[1]


def must_be_ca(cert: x509.Certificate, issuer: x509.Certificate, length: int) -> None:
    """The profile of a CA, and who signed it."""
    basic = extension(cert, x509.BasicConstraints)
    usage = extension(cert, x509.KeyUsage)
    good = basic is not None and basic.ca and basic.path_length == length
    must(good, "CA: its basic constraints")
    must(usage is not None and usage.key_cert_sign and usage.crl_sign, "CA: its key usage")
    must(signed(cert, issuer), "CA: its signature")


def must_be_leaf(leaf: x509.Certificate) -> None:
    """The profile of everybody else."""
    basic = extension(leaf, x509.BasicConstraints)
    usage = extension(leaf, x509.KeyUsage)
    must(basic is None or not basic.ca, "leaf: the CA bit")
    must(usage is not None and usage.digital_signature, "leaf: its key usage")


def must_be_in_date(cert: x509.Certificate, at: int) -> None:
    """The time is within its validity."""
    since, until = cert.not_valid_before_utc, cert.not_valid_after_utc
    moment = datetime.fromtimestamp(at, UTC)
    must(since <= moment <= until, "chain: expired or not yet valid")


def must_be_permitted(leaf: x509.Certificate, ca: x509.Certificate) -> None:
    """The name constraints of an issuing CA, for the names that a leaf may have."""
    constraints = extension(ca, x509.NameConstraints)
    if constraints is None:
        return
    _, dns, _ = names_of(leaf)

    def within(name: str, tree: x509.GeneralName) -> bool:
        suffix = str(tree.value).lstrip(".")
        return not suffix or name == suffix or name.endswith(f".{suffix}")

    def of(trees: list[x509.GeneralName] | None) -> list[x509.GeneralName]:
        return [tree for tree in trees or [] if isinstance(tree, x509.DNSName)]

    permitted, excluded = of(constraints.permitted_subtrees), of(constraints.excluded_subtrees)
    for name in dns:
        must(not any(within(name, tree) for tree in excluded), "chain: a name is excluded")
        allowed = not permitted or any(within(name, tree) for tree in permitted)
        must(allowed, "chain: a name is not permitted")


def must_be_a_list(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> int:
    """Verifies a list by itself, and returns its number."""
    must(crl.issuer == issuer.subject, "crl: the issuer")
    algorithm = crl.signature_algorithm_oid
    must(algorithm == SignatureAlgorithmOID.ECDSA_WITH_SHA256, "crl: the algorithm")
    key = issuer.public_key()
    good = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    must(good, "crl: the signature")
    # Delta and partitioned lists say so in a critical extension.
    must(not any(found.critical for found in crl.extensions), "crl: a critical extension")
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    must(number < 1 << 64, "crl: the number")
    return number


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of statement."""

    name: str
    payload_max: int
    decode: Callable[[bytes], T]
    # The member that says when it was made; none if it is judged now.
    created: str | None = "created"

    def envelope_max(self) -> int:
        """The most bytes of its envelope."""
        return self.payload_max * 4 // 3 + (64 << 10)


@dataclass(frozen=True)
class Envelope:
    """A statement as it travels (DSSE 1.0.2)."""

    type: str
    payload: bytes
    signature: bytes
    chain: list[bytes]

    @classmethod
    def parse(cls, kind: Kind[Any], data: bytes) -> Envelope:
        """An envelope of that kind, unjudged."""
        must(len(data) <= kind.envelope_max(), f"{kind.name}: the envelope is too long")
        try:
            found = json.loads(data)
            [signature] = found["signatures"]
            opened = cls(
                found["payloadType"],
                unbase64(found["payload"]),
                unbase64(signature["sig"]),
                [unbase64(cert) for cert in signature["chain"]],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{kind.name}: not an envelope: {error!r}") from error
        wanted = f"application/vnd.larder.{kind.name}+cbor"
        must(opened.type == wanted, f"{kind.name}: the type is {opened.type!r}")
        must(1 <= len(opened.chain) <= 3, f"{kind.name}: the length of the chain")
        must(len(opened.payload) <= kind.payload_max, f"{kind.name}: it is too long")
        return opened

    def must_be_signed_by(self, signer: x509.Certificate) -> None:
        """The signature over DSSE's pre-authentication encoding."""
        kind = self.type.encode()
        signed_bytes = b"DSSEv1 %d %s %d %s" % (
            len(kind),
            kind,
            len(self.payload),
            self.payload,
        )
        key = signer.public_key()
        p256 = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
        must(p256, "signature: the key")
        assert isinstance(key, ec.EllipticCurvePublicKey)
        try:
            key.verify(self.signature, signed_bytes, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise Refused("signature: it is wrong") from error


def unbase64(text: str) -> bytes:
    """The standard alphabet with padding, and nothing else."""
    return base64.b64decode(text, validate=True)
