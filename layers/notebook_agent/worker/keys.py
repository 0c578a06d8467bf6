"""The agent's section of ~/.ssh/authorized_keys: the user's own keys and the central ones."""

from __future__ import annotations

import base64
import binascii
import os
import re
import struct

from agent import HOME, read_text, write_text
from worker.files import read_all
from worker.model import Json
from worker.paths import OWN_KEYS_FILE

SECTION_BEGIN, SECTION_END = "# notebook-ssh: begin, managed by the agent", "# notebook-ssh: end"
# sshd(8), AUTHORIZED_KEYS FILE FORMAT: [options] type base64 [comment]; quotes in options may hold spaces.
# Each character matches in one way only, or a line with many `\"` would backtrack without end.
PUBLIC_KEY = re.compile(
    r'(?:(?:[^\s"]|"(?:\\"|[^"\\]|\\(?!"))*")+[ \t]+)?((?:ssh-|ecdsa-|sk-)[\w@.-]+)[ \t]+([A-Za-z0-9+/]+=*)(?:\s.*)?'
)


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
        if match and is_public_key(match[1], match[2]):
            valid.setdefault(match[2], line)
        else:
            reason = "a damaged public key" if match else "not a public key"
            if "PRIVATE KEY" in line:
                reason = "part of a private key: remove it from this file"
            rejected.append({"line": number, "reason": reason})
    return valid, rejected


def is_public_key(key_type: str, data: str) -> bool:
    """Return whether `data` (base64) is complete and begins with the type's name, as length and text (RFC 4253 §6.6)."""
    try:
        rest, parts = base64.b64decode(data, validate=True), []
        while rest:
            (length,) = struct.unpack(">I", rest[:4])
            if len(rest) < 4 + length:
                return False
            parts.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
            if "-cert-" in key_type:
                break  # a certificate goes on with numbers (OpenSSH, PROTOCOL.certkeys)
        return len(data) > 60 and parts[0] == key_type.encode() and (len(parts) > 1 or "-cert-" in key_type)
    except (binascii.Error, struct.error):
        return False


def sync_authorized_keys(central: list[Json] | None) -> tuple[Json, OSError | None]:
    """Update the agent's section of ~/.ssh/authorized_keys; return (what it holds, the error of the user's own file).

    central: [{"user", "keys"}] as in docs/protocol.md; None removes the section. The lines outside the section are the
    user's and stay as they are.
    """
    directory = HOME + "/.ssh"
    path = os.path.realpath(directory + "/authorized_keys")
    before = read_all(path)
    section = re.compile(rf"(?ms)^{SECTION_BEGIN}\n((?:(?!{SECTION_BEGIN}).)*?)^{SECTION_END}\n")
    rest = section.sub("", before)
    if central is None:
        if rest != before:
            write_text(path, rest, 0o600)
        return {}, None
    current = section.search(before)
    own, rejected, error = read_own_keys(current[1] if current else "")
    central_lines, count = central_key_lines(central, own)
    os.makedirs(directory, 0o700, exist_ok=True)
    for folder in directory, HOME:  # sshd reads no keys where other users can write (sshd_config(5), StrictModes)
        os.chmod(folder, os.stat(folder).st_mode & 0o7755)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    text = rest + "\n".join([SECTION_BEGIN, *own.values(), *central_lines, SECTION_END, ""])
    if text != before or os.stat(path).st_mode & 0o77:
        write_text(path, text, 0o600)
    return {"own": len(own), "central": count, "rejected": rejected[:20]}, error


def read_own_keys(section: str) -> tuple[dict[str, str], list[Json], OSError | None]:
    """Return the keys of the user's own file, as `parse_keys` does, and the error if it could not be read.

    An unreadable file is not an empty one: then the keys stay that `section` holds above the first central one.
    """
    try:
        return (*parse_keys(read_text(OWN_KEYS_FILE)), None)
    except OSError as error:
        return (*parse_keys(re.split(r"(?m)^#", section)[0]), error)


def central_key_lines(central: list[Json], own: dict[str, str]) -> tuple[list[str], int]:
    """Return the section's lines for the central keys that are not in `own`, and how many central keys there are."""
    lines, count = [], 0
    for user in central:
        keys, _ = parse_keys("\n".join(user["keys"]))
        count += len(keys)
        lines.append(f"# {user['user']}" if re.fullmatch(r"[\w.@+-]+", user["user"]) else "#")
        lines += [line for data, line in keys.items() if data not in own]
    return lines, count
