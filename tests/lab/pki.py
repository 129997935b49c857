"""Certificates of the lab: one authority per cluster, made in milliseconds (ECDSA P-256).

A cluster can have a second authority, which is how its serving certificate is swapped under a client's feet.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    cert: str
    key: str

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key (0600) into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_text(self.cert)
        key.touch(mode=0o600)
        key.write_text(self.key)
        return cert, key

    @classmethod
    def read(cls, folder: Path, name: str) -> "Pair":
        """Read what `write` wrote."""
        return cls((folder / f"{name}.crt").read_text(), (folder / f"{name}.key").read_text())


@dataclass(frozen=True)
class Authority(Pair):
    """A certificate authority."""

    @classmethod
    def make(cls, name: str) -> "Authority":
        """A new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name, ())
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = (
            _builder(subject, subject, key.public_key(), 10 * YEAR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))

    def server(self, names: Sequence[str] = ("localhost",), addresses: Sequence[str] = ("127.0.0.1", "::1")) -> Pair:
        """A serving certificate, by default for loopback."""
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        return self._issue(names[0], (), ExtendedKeyUsageOID.SERVER_AUTH, YEAR, alternatives)

    def client(self, user: str, groups: Sequence[str] = (), lifetime: dt.timedelta = YEAR) -> Pair:
        """A client certificate; Kubernetes takes the user from its CN and the groups from its O."""
        return self._issue(user, groups, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime, ())

    def node(self, name: str) -> Pair:
        """A kubelet's client certificate, which the Node authorizer and NodeRestriction understand."""
        return self.client(f"system:node:{name}", ("system:nodes",))

    def _issue(
        self,
        name: str,
        groups: Sequence[str],
        usage: x509.ObjectIdentifier,
        lifetime: dt.timedelta,
        alternatives: Sequence[x509.GeneralName],
    ) -> Pair:
        authority = x509.load_pem_x509_certificate(self.cert.encode())
        signer = serialization.load_pem_private_key(self.key.encode(), None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):  # pragma: no cover - we made it
            raise TypeError("an authority of the lab has an EC key")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(name, groups), authority.subject, key.public_key(), lifetime).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return Pair(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def signing_key() -> str:
    """A key pair's private PEM for ServiceAccount tokens (the API server derives the public half)."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def expiry(pem: str) -> dt.datetime:
    """When a certificate ends."""
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + lifetime)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    # SEC1, not PKCS8: the API server takes the public half of a token key from the former only.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
