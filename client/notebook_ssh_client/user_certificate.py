"""Reads OpenSSH user certificates for ECDSA keys on P-256 (OpenSSH's PROTOCOL.certkeys; RFC 4251 section 5). Pure.

ssh reads one before each connection, so this uses built-in modules only, without `struct` and `base64`.
"""

from __future__ import annotations

import binascii

KEY_TYPE = "ecdsa-sha2-nistp256"
CERTIFICATE_TYPE = "ecdsa-sha2-nistp256-cert-v01@openssh.com"

# Characters of a certificate's line. The stack's own have about 1,500: a key id has at most 400.
MAX_SIZE = 8192

# A request is signed for five minutes before and after its time (Signature Version 4).
MAX_CLOCK_SKEW_S = 300

_USER = 1  # SSH2_CERT_TYPE_USER


class InvalidCertificateError(ValueError):
    """The text is no certificate that this client can use; the message says why."""


class UserCertificate:
    """What a certificate says. Times are epoch seconds."""

    # Not a dataclass: importing `dataclasses` takes longer than everything else in this module.
    __slots__ = ("key_id", "line", "principals", "serial", "valid_after", "valid_before")

    def __init__(
        self, line: str, key_id: str, principals: tuple[str, ...], serial: int, valid_after: int, valid_before: int
    ) -> None:
        self.line = line  # `type base64`, without a comment
        self.key_id = key_id
        self.principals = principals
        self.serial = serial
        self.valid_after = valid_after
        self.valid_before = valid_before

    def is_good(self, now: float) -> bool:
        """Return whether it is valid at `now`, and for a while longer: five minutes, or a sixth of a short life."""
        margin = min(300, (self.valid_before - self.valid_after) // 6)
        return self.is_valid(now) and now < self.valid_before - margin

    def is_valid(self, now: float) -> bool:
        """Return whether it is valid at `now`, by a clock that may be behind as far as the stack accepts its requests."""
        return self.valid_after - MAX_CLOCK_SKEW_S <= now < self.valid_before


def parse_certificate(text: str, public_key: str) -> UserCertificate:
    """Return the certificate in `text`, the content of a `-cert.pub` file, if it is one for `public_key`.

    public_key: the content of the key's `.pub` file. Raises InvalidCertificateError for any other text.
    """
    if len(text) > MAX_SIZE:
        raise InvalidCertificateError(f"it is longer than {MAX_SIZE} characters")
    line = text.rstrip("\n")
    if not line.isprintable():
        raise InvalidCertificateError("it has control characters or more than one line")
    kind, _, rest = line.partition(" ")
    if kind != CERTIFICATE_TYPE:
        raise InvalidCertificateError(f"it is no {CERTIFICATE_TYPE}")
    encoded = rest.partition(" ")[0]
    fields = _Fields(_decode(encoded))
    if fields.string() != CERTIFICATE_TYPE.encode():
        raise InvalidCertificateError("its type differs from the one at the start of the line")
    fields.string()  # a nonce
    if (fields.string(), fields.string()) != _curve_and_point(public_key):
        raise InvalidCertificateError("it is for another key")
    serial, kind_of_certificate = fields.number(8), fields.number(4)
    if kind_of_certificate != _USER:
        raise InvalidCertificateError("it is no user's certificate")
    key_id = _text(fields.string())
    principals = tuple(_strings(fields.string()))
    valid_after, valid_before = fields.number(8), fields.number(8)
    if not principals:
        raise InvalidCertificateError("it names no principal")
    for _ in ("critical options", "extensions", "reserved", "signature key", "signature"):
        fields.string()
    fields.end()
    return UserCertificate(f"{kind} {encoded}", key_id, principals, serial, valid_after, valid_before)


def is_public_key(text: str) -> bool:
    """Return whether `text` is the content of a `.pub` file of an ECDSA key on P-256."""
    try:
        _curve_and_point(text)
    except InvalidCertificateError:
        return False
    return text.rstrip("\n").isprintable()


def _curve_and_point(public_key: str) -> tuple[bytes, bytes]:
    kind, _, rest = public_key.rstrip("\n").partition(" ")
    fields = _Fields(_decode(rest.partition(" ")[0]))
    if kind != KEY_TYPE or fields.string() != KEY_TYPE.encode():
        raise InvalidCertificateError(f"the public key is no {KEY_TYPE}")
    found = fields.string(), fields.string()
    fields.end()
    return found


def _decode(encoded: str) -> bytes:
    try:
        decoded = binascii.a2b_base64(encoded)
    except ValueError as error:
        raise InvalidCertificateError("it is not in base64") from error
    if binascii.b2a_base64(decoded, newline=False).decode() != encoded:
        raise InvalidCertificateError("it is not in base64")
    return decoded


def _strings(data: bytes) -> list[str]:
    fields, found = _Fields(data), []
    while not fields.is_empty:
        found.append(_text(fields.string()))
    return found


def _text(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    if not text.isprintable() or not text.isascii():
        raise InvalidCertificateError("it has control characters or non-ASCII text")
    return text


class _Fields:
    """The fields in a message, one after the other. Raises InvalidCertificateError where one is not complete."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        return self._take(self.number(4))

    def end(self) -> None:
        if not self.is_empty:
            raise InvalidCertificateError("there is something after its end")

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise InvalidCertificateError("it is not complete")
        self._at += size
        return taken
