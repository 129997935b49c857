"""Whom a client certificate names. Python's ssl module tells that of a peer's certificate only, so DER is read here."""

import re
import ssl

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _SET, _VERSION = 0x30, 0x31, 0xA0
_COMMON_NAME = bytes.fromhex("0603550403")
"""The object identifier 2.5.4.3, with tag and length."""
_BMP_STRING = 0x1E

Element = tuple[int, bytes, bytes]
"""Of DER: tag, content, and the whole element."""


def common_name(pem: str) -> str:
    """The subject's common name in the first certificate of a PEM text; the last one of several, as Go takes it.

    Raises:
        ValueError: there is no certificate, it is no X.509, or its subject has no common name.

    """
    found = _FIRST.search(pem)
    if found is None:
        raise ValueError("no certificate")
    der = ssl.PEM_cert_to_DER_cert(found.group())
    names = [_text(tag, content) for tag, content in _subject(der)]
    if not names:
        raise ValueError("no common name")
    return names[-1]


def _subject(der: bytes) -> list[tuple[int, bytes]]:
    """The values of the subject's common names (RFC 5280, 4.1)."""
    (tag, certificate, _), *_ = _elements(der)
    (inner, to_be_signed, _), *_ = _elements(certificate)
    if (tag, inner) != (_SEQUENCE, _SEQUENCE):
        raise ValueError("no certificate")
    fields = _elements(to_be_signed)
    # version (left out in v1), serialNumber, signature, issuer, validity, subject
    subject = fields[5 if fields and fields[0][0] == _VERSION else 4 :][:1]
    values: list[tuple[int, bytes]] = []
    for _, names, _ in subject:
        for _, pairs, _ in _elements(names):
            for _, pair, _ in _elements(pairs):
                kind, value = _elements(pair)[:2]
                if kind[2] == _COMMON_NAME:
                    values.append(value[:2])
    return values


def _elements(data: bytes) -> list[Element]:
    """The elements that stand one after the other in the data; at least one."""
    found: list[Element] = []
    at = 0
    while at < len(data) or not found:
        if len(data) - at < 2:
            raise ValueError("cut off")
        start, length = at + 2, data[at + 1]
        if length > 0x80:  # 0x80 itself is BER's indefinite length, and is cut off below
            start += length - 0x80
            length = int.from_bytes(data[at + 2 : start], "big")
        if length == 0x80 or start + length > len(data):
            raise ValueError("cut off")
        found.append((data[at], data[start : start + length], data[at : start + length]))
        at = start + length
    return found


def _text(tag: int, content: bytes) -> str:
    return content.decode("utf-16-be" if tag == _BMP_STRING else "utf-8")
