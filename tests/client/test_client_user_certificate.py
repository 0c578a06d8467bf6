"""What counts as a certificate for the client's key: those that ssh-keygen makes, and no damaged or other one."""

from __future__ import annotations

import binascii
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.laptop import create_host_key

from notebook_ssh_client.user_certificate import (
    MAX_SIZE,
    InvalidCertificateError,
    is_public_key,
    parse_certificate,
)

ARN = "arn:aws:sts::111122223333:assumed-role/data-science/mario AROA1:mario"


class Maker:
    """Makes certificates for a key with ssh-keygen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "authority"
        create_host_key(self.authority, "ecdsa")
        self.public_key = self.make_key("key", "ecdsa")

    def make_key(self, name: str, kind: str) -> str:
        create_host_key(self.folder / name, kind)
        return (self.folder / f"{name}.pub").read_text()

    def sign(self, *options: str, key: str = "key", key_id: str = ARN) -> str:
        command: list[str | Path] = [
            "ssh-keygen",
            "-q",
            "-s",
            self.authority,
            "-I",
            key_id,
            *options,
            self.folder / f"{key}.pub",
        ]
        subprocess.run(command, check=True)
        return (self.folder / f"{key}-cert.pub").read_text()


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def text(maker: Maker) -> str:
    return maker.sign("-n", "team/My-Notebook/1", "-V", "20270101000000Z:20270101010000Z", "-z", str(2**62))


pytestmark = pytest.mark.posix


def test_what_ssh_keygen_makes_is_read_as_it_reads_it(maker: Maker, text: str) -> None:
    found = parse_certificate(text, maker.public_key)
    assert (found.key_id, found.principals, found.serial) == (ARN, ("team/My-Notebook/1",), 2**62)
    assert found.valid_before - found.valid_after == 3600
    assert text.startswith(f"{found.line} ")
    printed = subprocess.run(
        ["ssh-keygen", "-L", "-f", maker.folder / "key-cert.pub"],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC"},
    ).stdout
    assert re.search(r"Valid: from 2027-01-01T00:00:00 to 2027-01-01T01:00:00", printed), printed
    assert (found.valid_after, found.valid_before) == (1798761600, 1798765200)


def test_other_certificates_are_refused(maker: Maker, text: str) -> None:
    maker.make_key("other", "ecdsa")
    maker.make_key("ed25519", "ed25519")
    kind, encoded, *_ = text.split(" ")
    longer = binascii.b2a_base64(binascii.a2b_base64(encoded) + b"\0", newline=False).decode()
    table = {
        "it is for another key": maker.sign("-n", "p", key="other"),
        "it is no ecdsa-sha2-nistp256-cert-v01@openssh.com": maker.sign("-n", "p", key="ed25519"),
        "it is no user's certificate": maker.sign("-h", "-n", "p"),
        "it names no principal": maker.sign(),
        "there is something after its end": f"{kind} {longer}",
        "it is not in base64": f"{kind} {encoded[:-2]}!!",
        "it has control characters or more than one line": f"{text.strip()}\nssh-rsa AAAA",
        f"it is longer than {MAX_SIZE} characters": text.strip() + "x" * MAX_SIZE,
        "its type differs from the one at the start of the line": f"{kind} {maker.public_key.split(' ')[1]}",
        "it has control characters or non-ASCII text": maker.sign("-n", "p", key_id="a\x1b[2Jb"),
    }
    for reason, other in table.items():
        with pytest.raises(InvalidCertificateError, match=re.escape(reason)):
            parse_certificate(other, maker.public_key)


def test_no_part_of_one_is_one(maker: Maker, text: str) -> None:
    kind, encoded, *_ = text.split(" ")
    blob = binascii.a2b_base64(encoded)
    for size in range(len(blob)):
        with pytest.raises(InvalidCertificateError):
            parse_certificate(f"{kind} {binascii.b2a_base64(blob[:size], newline=False).decode()}", maker.public_key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_damage_is_refused_or_harmless(maker: Maker, text: str, data: st.DataObject) -> None:
    """Whatever is changed, what is accepted is printable, for the same key, and a line of its own."""
    kind, encoded, *_ = text.split(" ")
    blob = bytearray(binascii.a2b_base64(encoded))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_certificate(
            f"{kind} {binascii.b2a_base64(bytes(blob), newline=False).decode()}", maker.public_key
        )
    except InvalidCertificateError:
        return
    assert f"{found.line} {found.key_id}".isprintable()
    assert all(principal.isprintable() for principal in found.principals)


@given(st.text())
def test_any_text_is_no_certificate_and_no_key(text: str) -> None:
    with pytest.raises(InvalidCertificateError):
        parse_certificate(text, text)
    assert not is_public_key(text)
