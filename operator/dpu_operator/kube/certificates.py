"""What a kubeconfig's certificates, keys and tokens are worth, told without using them."""

import base64
import binascii
import datetime as dt
import json
import re
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dpu_shared.errors import UserError

KEY_LIMIT = 32 * 1024
"""Bytes of a private key's PEM; a longer one would only cost time."""

_TOKEN = re.compile(r"[\x21-\x7e]+")


def decoded(text: str, *, field: str) -> bytes:
    """The bytes of a base64 field; line breaks in it are allowed, as kubectl allows them.

    Raises:
        UserError: it is not base64.

    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        failure = UserError(
            f"The kubeconfig's {field} is not base64.",
            "Write the file anew, for example with kubectl config view --raw --flatten.",
        )
    raise failure


def ca_bundle(raw: bytes) -> str:
    """The CA certificates as PEM, without whatever else stood between them.

    Raises:
        UserError: it is not PEM certificates, or none of them is a CA.

    """
    certificates = _certificates(raw, field="certificate-authority-data")
    if not any(_may_sign(certificate) for certificate in certificates):
        raise UserError(
            "The kubeconfig's certificate-authority-data holds no CA certificate.",
            "Put the certificate there that signed the API server's certificate.",
        )
    return _pem(certificates)


class Life(NamedTuple):
    """From when to when a credential is valid, in UTC; None where it does not say."""

    issued: dt.datetime | None = None
    expires: dt.datetime | None = None


def client_pair(certificate: bytes, key: bytes) -> tuple[str, str, Life]:
    """A client's certificate chain and its key as PEM, and from when to when the certificate is valid.

    An expired certificate is not refused: when it ends is reported by those who look at the date.

    Raises:
        UserError: one of them does not parse, the key is encrypted, or the two do not belong together.

    """
    chain = _certificates(certificate, field="client-certificate-data")
    private = _private_key(key)
    ours = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        theirs = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        theirs = b""
    if ours != theirs:
        raise UserError(
            "The kubeconfig's client key does not belong to its client certificate.",
            "Take certificate and key from the same place.",
        )
    key_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return _pem(chain), key_pem, Life(chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)


def checked_token(token: str) -> str:
    """The token, fit for an HTTP header.

    Raises:
        UserError: it holds something other than visible ASCII characters, which could forge a header.

    """
    if not _TOKEN.fullmatch(token):
        raise UserError(
            "The kubeconfig's token holds spaces, line breaks or other characters that no token has.",
            "Copy the token again, without a line break at its end.",
        )
    return token


def token_life(token: str) -> Life:
    """From when to when a JWT says that it is valid; an opaque token says nothing. No signature is checked."""
    parts = token.split(".")
    if len(parts) != 3:
        return Life()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return Life()
    if not isinstance(claims, dict):
        return Life()
    return Life(_moment(claims.get("iat")), _moment(claims.get("exp")))


def _moment(seconds: object) -> dt.datetime | None:
    if not isinstance(seconds, int | float):
        return None
    try:
        return dt.datetime.fromtimestamp(float(seconds), dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _certificates(raw: bytes, *, field: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError:
        failure = UserError(
            f"The kubeconfig's {field} does not hold a readable PEM certificate.",
            "Encode the whole PEM file, with its BEGIN and END lines, as base64.",
        )
    raise failure


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return certificate.version is x509.Version.v1
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def _private_key(raw: bytes) -> PrivateKeyTypes:
    failure = UserError(
        "The kubeconfig's client-key-data does not hold a readable PEM private key.",
        "Encode the whole PEM file of the key, without a password, as base64.",
    )
    if len(raw) > KEY_LIMIT:
        raise failure
    try:
        # the check of a huge RSA key's primes would take minutes; that it fits the certificate is checked later
        return serialization.load_pem_private_key(raw, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        failure = UserError(
            "The kubeconfig's client key is protected by a password.", "Use a key that is not encrypted."
        )
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise failure


def _pem(certificates: list[x509.Certificate]) -> str:
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)
