"""OpenSSH user certificates, up to the signature, which a key makes that never leaves KMS.

Sources: the layout is OpenSSH's PROTOCOL.certkeys; an ECDSA key and signature are RFC 5656 §3.1; integers are RFC 4251
§5 (`mpint`); what KMS returns is RFC 5480 (the public key) and RFC 3279 §2.2.3 (the signature), both in DER.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass

from notebook_ssh.model.ssh_keys import (
    CERTIFICATE,
    CERTIFICATE_TYPES,
    InvalidKeyError,
    PublicKey,
    key_fields,
    public_key,
)

AUTHORITY_TYPE = "ecdsa-sha2-nistp256"
"""The one that every partition's KMS has and that FIPS mode admits."""

LONGEST_USER_KEY = 4096
"""Characters of the line that a caller sends."""

SMALLEST_USER_RSA_BITS = 3072

LONGEST_KEY_ID = 400
"""Bytes. sshd writes it into its log at each login."""

LONGEST_MESSAGE = 4096
"""Bytes that KMS signs as they are (KMS API Reference, Sign, `Message`)."""

VALID_BEFORE_S = 60
"""Seconds for which the notebook's clock may be behind the stack's."""

NONCE_BYTES, SERIAL_BITS = 32, 63

_EXTENSIONS = (
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
)
"""What a key in `authorized_keys` may do without options, in the order that the layout demands."""

_USER = 1
# SubjectPublicKeyInfo of an uncompressed point on P-256 (RFC 5480 §2), up to the point.
_P256_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SEQUENCE, _INTEGER = 0x30, 0x02
_KEY_ID = re.compile(r"[!-~]+(?: [!-~]+)*")


@dataclass(frozen=True, slots=True)
class UserCertificate:
    """What a certificate says. Times are epoch seconds."""

    key: PublicKey
    key_id: str
    principals: tuple[str, ...]
    serial: int
    valid_after: int
    valid_before: int


def user_key(line: str) -> PublicKey:
    """Return the public key on `line` that a certificate may be for.

    Raises InvalidKeyError: for options, another certificate, an RSA key of fewer than 3,072 bits, or no key at all.
    """
    if len(line) > LONGEST_USER_KEY:
        raise InvalidKeyError(f"longer than {LONGEST_USER_KEY} characters")
    if len(line.splitlines()) != 1:
        raise InvalidKeyError("not one line")
    key = public_key(line)
    if key.options:
        raise InvalidKeyError("a key with options: send the .pub file as it is")
    if key.type in CERTIFICATE_TYPES:
        raise InvalidKeyError("a certificate: send the public key that it is for")
    if key.type == "ssh-rsa" and int.from_bytes(key_fields(key)[1], "big").bit_length() < SMALLEST_USER_RSA_BITS:
        raise InvalidKeyError(
            f"an RSA key of fewer than {SMALLEST_USER_RSA_BITS} bits: make one of type ecdsa or ed25519"
        )
    return key


def principal_of(stack: str, notebook: str, created_at: int) -> str:
    """Return the one principal of a notebook: none of another stack, nor of another notebook that had the name.

    notebook: as SageMaker spells it. created_at: its `CreationTime` in epoch seconds.
    """
    return f"{stack}/{notebook}/{created_at}"


def key_id_of(user_arn: str, unique_id: str) -> str | None:
    """Return the key id for a caller; None for one that a line of sshd's log cannot hold.

    unique_id: as IAM assigns it, `AROA…:session` or `AIDA…`, so that a role that is recreated under its name differs.
    """
    key_id = f"{user_arn} {unique_id}"
    return key_id if len(key_id) <= LONGEST_KEY_ID and _KEY_ID.fullmatch(key_id) and user_arn and unique_id else None


def end_of_certificate(now: int, seconds: int, most: int, until: int | None) -> int:
    """Return when a certificate ends that is issued at `now`: after `seconds`, at most `most`, and never past `until`."""
    end = now + max(1, min(seconds, most))
    return end if until is None else min(end, until)


def message_to_sign(certificate: UserCertificate, authority: str, nonce: bytes) -> bytes:
    """Return the bytes that the authority signs: the whole certificate but its signature.

    authority: its public key, `type base64`. nonce: NONCE_BYTES random bytes. Raises InvalidKeyError if the key is so
    long that KMS would refuse the message.
    """
    message = b"".join(
        (
            _string(_certificate_type(certificate.key)),
            _string(nonce),
            *map(_string, key_fields(certificate.key)),
            struct.pack(">Q", certificate.serial),
            struct.pack(">I", _USER),
            _string(certificate.key_id),
            _string(b"".join(map(_string, certificate.principals))),
            struct.pack(">QQ", certificate.valid_after, certificate.valid_before),
            _string(b""),  # no critical options
            _string(b"".join(_string(name) + _string(b"") for name in _EXTENSIONS)),
            _string(b""),  # reserved
            _string(b64decode(authority.split(" ")[1])),
        )
    )
    if len(message) > LONGEST_MESSAGE:
        raise InvalidKeyError("a key that is too long for a certificate: make one of type ecdsa or ed25519")
    return message


def certificate_line(certificate: UserCertificate, message: bytes, signature: bytes) -> str:
    """Return the certificate as a line for a `-cert.pub` file.

    signature: of `message`, as KMS makes it. Raises ValueError for one that is no ECDSA signature on P-256.
    """
    signed = message + _string(_string(AUTHORITY_TYPE) + _string(b"".join(map(_mpint, _two_integers(signature)))))
    return f"{_certificate_type(certificate.key)} {b64encode(signed).decode()} {certificate.key_id}"


def authority_line(public_key_info: bytes) -> str:
    """Return an authority's public key as `type base64`, from KMS's answer to GetPublicKey.

    Raises ValueError unless it is a key on P-256.
    """
    point = public_key_info.removeprefix(_P256_HEAD)
    if len(point) == len(public_key_info) or len(point) != 65 or point[0] != 4:
        raise ValueError("not the public key of an ECC_NIST_P256 key")
    blob = _string(AUTHORITY_TYPE) + _string("nistp256") + _string(point)
    return f"{AUTHORITY_TYPE} {b64encode(blob).decode()}"


def _certificate_type(key: PublicKey) -> str:
    # sk-ssh-ed25519@openssh.com → sk-ssh-ed25519-cert-v01@openssh.com
    return key.type.removesuffix("@openssh.com") + CERTIFICATE


def _string(value: str | bytes) -> bytes:
    raw = value.encode("ascii") if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def _mpint(number: int) -> bytes:
    return _string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _two_integers(der: bytes) -> tuple[int, int]:
    """Return r and s of `SEQUENCE { r INTEGER, s INTEGER }`, each in the range of the curve's order."""
    if len(der) < 8 or der[0] != _SEQUENCE or der[1] != len(der) - 2:
        raise ValueError("not a signature in DER")
    r, rest = _integer(der[2:])
    s, rest = _integer(rest)
    if rest:
        raise ValueError("not a signature in DER: it has more than two integers")
    return r, s


def _integer(der: bytes) -> tuple[int, bytes]:
    if len(der) < 3 or der[0] != _INTEGER or not 0 < der[1] <= min(33, len(der) - 2):
        raise ValueError("not a signature in DER: an integer is missing")
    value = int.from_bytes(der[2 : 2 + der[1]], "big", signed=True)
    if not 0 < value < _P256_ORDER:
        raise ValueError("a signature out of the range of P-256")
    return value, der[2 + der[1] :]
