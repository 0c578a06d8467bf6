"""The agent's section of ~/.ssh/authorized_keys: the user's own keys and the central ones."""

from __future__ import annotations

import base64
import binascii
import os
import re
import struct

from agent import HOME, read_text
from worker.files import locked, read_all, write_file
from worker.model import Json
from worker.paths import OWN_KEYS_FILE

SECTION_BEGIN, SECTION_END = "# notebook-ssh: begin, managed by the agent", "# notebook-ssh: end"
# Also with an editor's line ends, and at the end of a text without a newline.
SECTION = re.compile(rf"(?ms)^{SECTION_BEGIN}\r?\n((?:(?!{SECTION_BEGIN}).)*?)^{SECTION_END}\r?(?:\n|\Z)")

SMALLEST_RSA_BITS = 2048
"""The system's crypto policy makes sshd refuse shorter ones (sshd_config(5), RequiredRSASize), as the stack does."""

# sshd(8), AUTHORIZED_KEYS FILE FORMAT: [options] type base64 [comment]; quotes in options may hold spaces.
# Each character matches in one way only, or a line with many `\"` would backtrack without end.
PUBLIC_KEY = re.compile(
    r'(?:(?:[^\s"]|"(?:\\"|[^"\\]|\\(?!"))*")+[ \t]+)?((?:ssh-|ecdsa-|sk-)[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:\s.*)?'
)

AUTHORITY = re.compile(r"ecdsa-sha2-nistp256 [A-Za-z0-9+/]+={0,2}")


def parse_keys(text: str) -> tuple[dict[str, str], list[Json]]:
    """Parse an authorized_keys text into ({key data: line}, [{"line", "reason"}]).

    The first result has the public keys without duplicates, the second the lines that are no public keys.
    """
    valid: dict[str, str] = {}
    rejected = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = PUBLIC_KEY.fullmatch(line)
        reason = key_defect(match[1], match[2]) if match else "not a public key"
        if match and not reason:
            valid.setdefault(match[2], line)
        else:
            if "PRIVATE KEY" in line:
                reason = "part of a private key: remove it from this file"
            rejected.append({"line": number, "reason": reason})
    return valid, rejected


def is_public_key(key_type: str, data: str) -> bool:
    """Return whether `data` (base64) is a complete public key of this type that sshd accepts."""
    return not key_defect(key_type, data)


def key_defect(key_type: str, data: str) -> str:
    """Return why `data` (base64) is no public key of this type that sshd accepts, or "".

    The fields are length and bytes each (RFC 4253 §6.6); a certificate begins with a nonce and goes on with numbers
    behind the key (OpenSSH, PROTOCOL.certkeys).
    """
    certificate, rsa = "-cert-" in key_type, key_type.startswith("ssh-rsa")
    try:
        fields = read_fields(base64.b64decode(data, validate=True), (4 if rsa else 1) if certificate else 9)
    except (binascii.Error, struct.error):
        fields = []
    if len(data) <= 60 or fields[:1] != [key_type.encode()] or len(fields) < (4 if rsa and certificate else 1):
        return "a damaged public key"
    if not certificate and len(fields) < (3 if rsa else 2):
        return "a damaged public key"
    if rsa and int.from_bytes(fields[-1], "big").bit_length() < SMALLEST_RSA_BITS:
        return f"an RSA key of fewer than {SMALLEST_RSA_BITS} bits, which sshd may refuse: make an ed25519 key"
    return ""


def is_authority(line: str) -> bool:
    """Return whether `line` is the public key of an authority, `type base64`, of the one type that the stack has."""
    return bool(AUTHORITY.fullmatch(line)) and is_public_key(*line.split(" "))


def read_fields(rest: bytes, limit: int) -> list[bytes]:
    """Return up to `limit` fields; [] if the last one is cut off. struct.error if a length is."""
    fields: list[bytes] = []
    while rest and len(fields) < limit:
        (length,) = struct.unpack(">I", rest[:4])
        if len(rest) < 4 + length:
            return []
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return fields


def sync_authorized_keys(central: list[Json] | None, certificates: Json | None = None) -> tuple[Json, OSError | None]:
    """Update the agent's section of ~/.ssh/authorized_keys; return (what it holds, the error of the user's own file).

    central: [{"user", "keys"}] as in docs/protocol.md; None removes the section. certificates: {"authorities",
    "principal"}, whose certificates are admitted. The lines outside the section are the user's and stay as they are. The
    worker and `copy-ssh-keys` take turns.
    """
    with locked("authorized_keys"):
        return update_section(central, certificates)


def update_section(central: list[Json] | None, certificates: Json | None = None) -> tuple[Json, OSError | None]:
    """Do what `sync_authorized_keys` does, without a lock."""
    directory = HOME + "/.ssh"
    path = os.path.realpath(directory + "/authorized_keys")
    before = read_all(path)
    rest = SECTION.sub("", before)
    if central is None:
        if rest != before:
            write_file(path, rest, 0o600)
        return {}, None
    current = SECTION.search(before)
    own, rejected, error = read_own_keys(current[1] if current else "")
    central_lines, count = central_key_lines(central, own)
    os.makedirs(directory, 0o700, exist_ok=True)
    for folder in directory, HOME:  # sshd reads no keys where other users can write (sshd_config(5), StrictModes)
        os.chmod(folder, os.stat(folder).st_mode & 0o7755)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    above = parse_keys(rest)[0] if path == os.path.realpath(OWN_KEYS_FILE) else {}  # both are one file
    own_lines = [line for data, line in own.items() if data not in above]
    authorities = authority_lines(certificates)
    text = rest + "\n".join([SECTION_BEGIN, *own_lines, *central_lines, *authorities, SECTION_END, ""])
    if text != before or os.stat(path).st_mode & 0o77:
        write_file(path, text, 0o600)
    return {
        "own": len(own),
        "central": count,
        "authorities": len(certificates["authorities"]) if certificates else 0,
        "rejected": rejected[:20],
    }, error


def authority_lines(certificates: Json | None) -> list[str]:
    """Return the section's lines that admit certificates: of these authorities, and for this notebook alone.

    sshd(8), AUTHORIZED_KEYS FILE FORMAT: with `principals`, a certificate must have one of them, whatever the user's
    name is.
    """
    if not certificates:
        return []
    options = f'cert-authority,principals="{certificates["principal"]}"'
    return ["# certificates", *(f"{options} {line}" for line in certificates["authorities"])]


def keys_stamp() -> tuple[int, int, int] | None:
    """Return what changes with ~/.ssh/authorized_keys: inode, time and size; None if there is no such file."""
    try:
        file = os.stat(HOME + "/.ssh/authorized_keys")
        return file.st_ino, file.st_mtime_ns, file.st_size
    except OSError:
        return None


def read_own_keys(section: str) -> tuple[dict[str, str], list[Json], OSError | None]:
    """Return the keys of the user's own file, as `parse_keys` does, and the error if it could not be read.

    An unreadable file is not an empty one: then the keys stay that `section` holds above the first central one. The
    agent's section is no part of it: the file may be linked to ~/.ssh/authorized_keys, or a copy of it.
    """
    try:
        # Empty lines in its place keep the numbers of the others.
        text = SECTION.sub(lambda match: "\n" * match[0].count("\n"), read_text(OWN_KEYS_FILE))
        return (*parse_keys(text), None)
    except OSError as error:
        return (*parse_keys(re.split(r"(?m)^#", section)[0]), error)


def central_key_lines(central: list[Json], own: dict[str, str]) -> tuple[list[str], int]:
    """Return the section's lines for the central keys that are not in `own`, and how many central keys there are."""
    lines, count = [], 0
    for user in central:
        # As the stack holds it (model/ssh_keys.py): a user may print this file.
        keys, _ = parse_keys("\n".join(key for key in user["keys"] if key.replace("\t", " ").isprintable()))
        count += len(keys)
        lines.append(f"# {user['user']}" if re.fullmatch(r"[\w.@+-]+", user["user"]) else "#")
        lines += [line for data, line in keys.items() if data not in own]
    return lines, count
