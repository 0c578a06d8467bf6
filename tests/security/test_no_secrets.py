"""No secret in the repository: every file that git knows is searched for what keys and tokens look like.

detect-secrets knows the usual ones; ngrok's is added. Its guesses by entropy are left out: every hash looks random.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.secrets_collection import SecretsCollection
from detect_secrets.settings import get_plugins, transient_settings

PROJECT = Path(__file__).resolve().parents[2]

GUESSES = {"Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector"}

# ngrok's authtokens: 27 letters and digits, an underscore, 20 and more.
NGROK_TOKEN = re.compile(rb"\b[0-9][A-Za-z0-9]{26}_[A-Za-z0-9]{20,24}\b")

HARMLESS = {
    ("tests/agent/test_agent_hostile.py", "Private Key"),  # a first line alone, which the agent must not repeat
    ("tests/unit/test_ssh_keys.py", "Private Key"),  # the same, which the stack must refuse
    ("tests/integration/test_api_contract.py", "AWS Access Key"),  # the one of AWS's documentation, ending in EXAMPLE
    ("tests/verify/test_report.py", "AWS Access Key"),  # made up, and to be left out of a report
    ("tests/client/test_client_endpoint.py", "Basic Auth Credentials"),  # of a proxy that lasts as long as its test
}

EXAMPLES = {
    "AWS Access Key": "key = 'AKIA" + "I23456789ABCDEFG'",
    "Private Key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "GitHub Token": "ghp_" + "a" * 36,
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "c" * 43,
    "Slack Token": "xoxb-" + "123456789012-123456789012-" + "a" * 24,
    "Basic Auth Credentials": "https://maria:" + "sesame@example.com/",
}


def known_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    names = [name.decode() for name in listed.stdout.split(b"\0") if name]
    return [name for name in names if (PROJECT / name).is_file()]


@contextmanager
def detectors() -> Iterator[SecretsCollection]:
    kinds: Mapping[str, type] = get_mapping_from_secret_type_to_class()
    names = {kind.__name__ for kind in kinds.values()} - GUESSES
    with transient_settings({"plugins_used": [{"name": name} for name in sorted(names)]}):
        yield SecretsCollection(root=str(PROJECT))


def suspicious(path: Path) -> bool:
    """Whether a detector's pattern occurs in the file. It scans line by line, which takes a hundred times as long."""
    text = path.read_text(errors="replace")
    return any(pattern.search(text) for detector in get_plugins() for pattern in getattr(detector, "denylist", ()))


def test_no_file_holds_a_key_or_a_token_of_a_known_kind() -> None:
    files = known_files()
    assert len(files) > 100
    with detectors() as found:
        for name in files:
            if suspicious(PROJECT / name):
                found.scan_file(name)
    assert {(name, secret.type) for name, secret in found} == HARMLESS


def test_no_file_holds_a_token_of_ngrok() -> None:
    assert [name for name in known_files() if NGROK_TOKEN.search((PROJECT / name).read_bytes())] == []
    assert NGROK_TOKEN.search(b"authtoken: 2" + b"a" * 26 + b"_" + b"B" * 22 + b"\n")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_one_would_be_found(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text(EXAMPLES[kind] + "\n")
    with detectors() as found:
        assert suspicious(tmp_path / "file.txt")
        found.scan_file(str(tmp_path / "file.txt"))
    assert kind in {secret.type for _, secret in found}
