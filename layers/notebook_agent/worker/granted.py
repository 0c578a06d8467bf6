"""What the stack has granted in this boot: by it the worker knows whose session is the stack's to end.

A key that was rotated, or an authority that was, has left the stack's reply while sessions are open that it let in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from agent import load_json
from worker.files import write_file
from worker.keys import parse_keys, read_own_keys
from worker.model import Json
from worker.paths import GRANTED_FILE

KINDS = "certificate", "central", "own"
MOST = 1000


@dataclass(frozen=True)
class Granted:
    """Fingerprints as sshd logs them. central: the user of each central key; own: of the keys in the user's own file."""

    authorities: frozenset[str]
    central: dict[str, str]
    own: frozenset[str]

    def kind(self, login: Json | None) -> str:
        """Return how a session logged in: one of KINDS, or `unknown` where no line says it.

        A key that is in the user's own file as well is the user's. So is a certificate of an authority that is.
        """
        if not login:
            return "unknown"
        if login.get("serial"):
            return "certificate" if login["authority"] in self.authorities else "own"
        return "central" if login["key"] in self.central and login["key"] not in self.own else "own"


def fingerprint(data: str) -> str:
    """Return the fingerprint of a public key's base64, as sshd logs it; "" for what is none."""
    try:
        return "SHA256:" + base64.b64encode(hashlib.sha256(base64.b64decode(data)).digest()).decode().rstrip("=")
    except (binascii.Error, ValueError):
        return ""


def remember_granted(reply: Json) -> None:
    """Add what a reply grants to GRANTED_FILE, which lasts as long as the boot."""
    before = load_json(GRANTED_FILE)
    authorities = dict.fromkeys(before.get("authorities") or [])
    for line in (reply.get("certificates") or {}).get("authorities") or []:
        authorities[fingerprint(line.split(" ")[1])] = None
    central = dict(before.get("central") or {})
    for user in reply.get("authorized_keys") or []:
        for data in parse_keys("\n".join(user["keys"]))[0]:
            central[fingerprint(data)] = user["user"]
    after = {"authorities": list(authorities)[-MOST:], "central": dict(list(central.items())[-MOST:])}
    if after != before:
        write_file(GRANTED_FILE, json.dumps(after), 0o600)


def load_granted() -> Granted:
    """Return what was granted in this boot, and the user's own keys as they are now."""
    saved = load_json(GRANTED_FILE)
    own = frozenset(map(fingerprint, read_own_keys("")[0]))
    return Granted(frozenset(saved.get("authorities") or []), dict(saved.get("central") or {}), own)
