"""Certificates, as OpenSSH reads them: what they say, for which keys, and signatures as KMS makes them."""

from __future__ import annotations

import re
import struct
import subprocess
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, strategies as st

from notebook_ssh.model.certificate import (
    LONGEST_MESSAGE,
    UserCertificate,
    authority_line,
    certificate_line,
    end_of_certificate,
    key_id_of,
    message_to_sign,
    principal_of,
    user_key,
)
from notebook_ssh.model.ssh_keys import InvalidKeyError, public_key

NOW = 1_790_000_000
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CA = ec.generate_private_key(ec.SECP256R1())
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())
ARN = "arn:aws:sts::111122223333:assumed-role/data-science/mario"
KEY_ID = f"{ARN} AROAEXAMPLE:mario"


def info(key: ec.EllipticCurvePrivateKey) -> bytes:
    """What KMS answers to GetPublicKey."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signed(message: bytes, key: ec.EllipticCurvePrivateKey = CA) -> bytes:
    """What KMS answers to Sign."""
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def made(tmp_path: Path, kind: str, *options: str) -> str:
    """A public key of ssh-keygen's."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def of_hardware(kind: str) -> str:
    """A public key as a token makes it; there is none here."""
    fields = [kind.encode()]
    if "ecdsa" in kind:
        numbers = CA.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        fields += [b"nistp256", numbers]
    else:
        fields += [bytes(range(32))]
    blob = b"".join(struct.pack(">I", len(field)) + field for field in (*fields, b"ssh:"))
    return f"{kind} {b64encode(blob).decode()} token"


def a_certificate(line: str, **parts: object) -> str:
    usual = {
        "key": user_key(line),
        "key_id": KEY_ID,
        "principals": (principal_of("team-ssh", "My-Notebook", NOW - 5000),),
        "serial": 2**63 - 1,
        "valid_after": NOW - 60,
        "valid_before": NOW + 900,
    }
    certificate = UserCertificate(**(usual | parts))  # type: ignore[arg-type]
    message = message_to_sign(certificate, authority_line(info(CA)), bytes(32))
    return certificate_line(certificate, message, signed(message))


def read_by_ssh_keygen(line: str, tmp_path: Path) -> str:
    """What ssh-keygen says of a certificate; it verifies the signature before."""
    path = tmp_path / "id-cert.pub"
    path.write_text(line + "\n")
    found = subprocess.run(
        ["ssh-keygen", "-L", "-f", path],
        capture_output=True,
        text=True,
        check=False,
        env={"TZ": "UTC", "PATH": "/usr/bin"},
    )
    return re.sub(r"[ \t]+", " ", found.stdout + found.stderr)


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("ed25519", (), "ssh-ed25519-cert-v01@openssh.com"),
        ("ecdsa", ("-b", "256"), "ecdsa-sha2-nistp256-cert-v01@openssh.com"),
        ("ecdsa", ("-b", "384"), "ecdsa-sha2-nistp384-cert-v01@openssh.com"),
        ("ecdsa", ("-b", "521"), "ecdsa-sha2-nistp521-cert-v01@openssh.com"),
        ("rsa", ("-b", "3072"), "ssh-rsa-cert-v01@openssh.com"),
    ],
)
def test_openssh_reads_what_a_certificate_says(kind: str, options: tuple[str, ...], name: str, tmp_path: Path) -> None:
    said = read_by_ssh_keygen(a_certificate(made(tmp_path, kind, *options)), tmp_path)
    assert f"Type: {name} user certificate" in said
    assert f'Key ID: "{KEY_ID}"' in said
    assert f"Serial: {2**63 - 1}" in said
    assert "Valid: from 2026-09-21T14:12:20 to 2026-09-21T14:28:20" in said
    assert f"Principals: \n team-ssh/My-Notebook/{NOW - 5000}\n Critical Options: (none)" in said
    # The same as a key in authorized_keys may do.
    assert re.findall(r"^ (permit-\S+)", said, re.MULTILINE) == [
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    ]


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
def test_a_key_in_hardware_gets_one_too(kind: str, tmp_path: Path) -> None:
    said = read_by_ssh_keygen(a_certificate(of_hardware(kind)), tmp_path)
    assert f"Type: {kind.split('@')[0]}-cert-v01@openssh.com user certificate" in said


def test_openssh_refuses_a_certificate_that_was_changed(tmp_path: Path) -> None:
    kind, blob, comment = a_certificate(made(tmp_path, "ed25519")).split(" ", 2)
    raw = bytearray(b64decode(blob))
    at = raw.index(b"team-ssh/")
    raw[at] ^= 1
    said = read_by_ssh_keygen(f"{kind} {b64encode(bytes(raw)).decode()} {comment}", tmp_path)
    assert "Type:" not in said, said


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no known key type|not one line"),
        ("ssh-ed25519 AAAA", "too early"),
        ("ssh-dss AAAAB3NzaC1kc3M= x", "no known key type"),
        ("restrict {ed25519}", "with options"),
        ('cert-authority,principals="root" {ed25519}', "with options"),
        ("{certificate}", "a certificate"),
        ("{ed25519}\n{ed25519}", "not one line"),
        ("{ed25519}\x1b[0m", "cannot be printed"),
        ("{rsa2048}", "fewer than 3072 bits"),
        ("{begin} OPENSSH PRIVATE KEY-----", "private key"),
        ("{ed25519} " + 5000 * "x", "longer than 4096"),
    ],
)
def test_these_are_no_keys_for_a_certificate(line: str, why: str, tmp_path: Path) -> None:
    keys = {"begin": "-----BEGIN"}
    for name, kind in (("ed25519", ("ed25519",)), ("rsa2048", ("rsa", "-b", "2048"))):
        if "{" + name in line:
            (tmp_path / name).mkdir()
            keys[name] = made(tmp_path / name, *kind).strip()
    if "{certificate}" in line:
        keys["certificate"] = a_certificate(made(tmp_path, "ed25519"))
    with pytest.raises(InvalidKeyError, match=why):
        user_key(line.format(**keys))


def test_a_message_too_long_for_kms_is_refused_before_it_is_asked() -> None:
    exponent, modulus = b"\x01\x00\x01", b"\x00" + b"\xff" * 3030
    blob = b"".join(struct.pack(">I", len(field)) + field for field in (b"ssh-rsa", exponent, modulus))
    longest = user_key(f"ssh-rsa {b64encode(blob).decode()}")
    principal = principal_of("s" * 128, "n" * 63, NOW)
    certificate = UserCertificate(longest, 400 * "x", (principal,), 1, NOW, NOW + 1)
    message = message_to_sign(certificate, authority_line(info(CA)), bytes(32))
    assert len(message) <= LONGEST_MESSAGE, "the longest key that a caller can send"
    with pytest.raises(InvalidKeyError, match="too long"):
        message_to_sign(replace(certificate, principals=(200 * "p" + principal,)), authority_line(info(CA)), bytes(32))


@pytest.mark.parametrize(
    ("now", "seconds", "until", "end"),
    [
        (NOW, 900, None, NOW + 900),
        (NOW, 3600, None, NOW + 3600),
        (NOW, 3601, None, NOW + 3600),
        (NOW, 10**12, None, NOW + 3600),
        (NOW, 0, None, NOW + 1),
        (NOW, 900, NOW + 60, NOW + 60),
        (NOW, 900, NOW + 901, NOW + 900),
    ],
)
def test_a_certificate_ends(now: int, seconds: int, until: int | None, end: int) -> None:
    assert end_of_certificate(now, seconds, 3600, until) == end


@pytest.mark.parametrize(
    ("arn", "unique_id", "key_id"),
    [
        (ARN, "AROAEXAMPLE:mario", KEY_ID),
        ("", "AROAEXAMPLE:mario", None),
        (ARN, "", None),
        (ARN + "\n", "AROA", None),
        (ARN + "é", "AROA", None),
        (ARN + "\x1b[2J", "AROA", None),
        (ARN, "A" * 400, None),
        (ARN, "A" * (399 - len(ARN)), f"{ARN} {'A' * (399 - len(ARN))}"),
    ],
)
def test_a_key_id_is_one_printable_line(arn: str, unique_id: str, key_id: str | None) -> None:
    assert key_id_of(arn, unique_id) == key_id


def test_notebooks_share_no_principal() -> None:
    """Not with one of another stack or spelling, and not with one that had the name before."""
    principals = [
        principal_of(stack, name, created)
        for stack in ("a", "a-b", "A")
        for name in ("b", "a-b", "B", "a")
        for created in (1, 11)
    ]
    assert len(set(principals)) == len(principals)


@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1))
def test_any_signature_of_kms_is_read(r: int, s: int) -> None:
    line = certificate_line(
        UserCertificate(user_key(of_hardware("sk-ssh-ed25519@openssh.com")), KEY_ID, ("p",), 1, 0, 1),
        b"message",
        encode_dss_signature(r, s),
    )
    raw = b64decode(line.split()[1]).removeprefix(b"message")
    numbers = []
    rest = raw[4 + 4 + len("ecdsa-sha2-nistp256") + 4 :]
    while rest:
        (length,) = struct.unpack(">I", rest[:4])
        numbers.append(int.from_bytes(rest[4 : 4 + length], "big", signed=True))
        rest = rest[4 + length :]
    assert numbers == [r, s]


@given(st.binary(max_size=80) | st.builds(lambda r, s: encode_dss_signature(r, s)[:-1], st.just(5), st.just(7)))
def test_anything_else_is_no_signature(der: bytes) -> None:
    certificate = UserCertificate(user_key(of_hardware("sk-ssh-ed25519@openssh.com")), KEY_ID, ("p",), 1, 0, 1)
    with pytest.raises(ValueError, match="signature"):
        certificate_line(certificate, b"message", der)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (ORDER, 1), (1, ORDER), (2**256 - 1, 1)], ids=["r=0", "s=0", "r=n", "s=n", "r>n"]
)
def test_numbers_out_of_range_are_no_signature(r: int, s: int) -> None:
    certificate = UserCertificate(user_key(of_hardware("sk-ssh-ed25519@openssh.com")), KEY_ID, ("p",), 1, 0, 1)
    with pytest.raises(ValueError, match="out of the range"):
        certificate_line(certificate, b"message", encode_dss_signature(r, s))


def test_an_authority_is_a_key_on_p256() -> None:
    line = authority_line(info(CA))
    assert public_key(line).material == line
    assert line == CA.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for other in (info(OTHER_CURVE), info(CA)[:-1], info(CA) + b"x", b""):
        with pytest.raises(ValueError, match="P256"):
            authority_line(other)
