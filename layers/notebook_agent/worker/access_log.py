"""The sessions that the stack is yet to hear of, if it keeps an access log (docs/access.md).

They come from what sshd wrote into the journal, so that a session of seconds between two reports counts too. What is
reported is this notebook's word: any program of ec2-user's could write the same.
"""

from __future__ import annotations

import json

from agent import load_json
from worker.files import write_file
from worker.granted import Granted
from worker.model import Json
from worker.paths import ACCESS_FILE, SESSIONS_FILE
from worker.texts import one_line

MOST = 20  # of a report
MOST_BYTES = 8000  # of a report, which has 16 KB
REMEMBERED = 2000


class AccessLog:
    """What of this boot's logins was reported: by id, whether with the end."""

    def __init__(self) -> None:
        self.reported: dict[str, bool] = load_json(ACCESS_FILE)
        self.dropped = 0  # logins that were more than root keeps, as far as reported

    def pending(self, boot: str, granted: Granted, now: float, offset: float) -> Json:
        """Return the report's fields for what the stack does not know yet, the oldest first.

        now: the notebook's epoch seconds; offset: what the stack's clock is ahead.
        """
        state = load_json(SESSIONS_FILE)
        still_open = {
            (each["login"]["pid"], each["login"]["at"]) for each in state.get("sessions", []) if each["login"]
        }
        entries: list[Json] = []
        for login in state.get("logins", []):
            ended = login["ended"] or (None if (login["pid"], login["at"]) in still_open else int(now))
            entry = entry_of(login, ended, boot, granted, offset)
            known = self.reported.get(entry["id"])
            if known is None or (ended and not known):
                entries.append(entry if known is None else {**entry, "known": True})
        while len(entries) > MOST or len(json.dumps(entries)) > MOST_BYTES:
            entries = entries[: min(MOST, len(entries) - 1)]
        more = max(0, state.get("dropped", 0) - self.dropped)
        return {"access": entries, "access_more": more} if entries or more else {}

    def accepted(self, report: Json) -> bool:
        """Remember what the stack has accepted; return whether there may be more."""
        entries = report.get("access") or []
        if not report.get("access_more") and not entries:
            return False
        self.dropped += report["access_more"]
        self.reported.update({entry["id"]: entry["end"] is not None for entry in entries})
        self.reported = dict(list(self.reported.items())[-REMEMBERED:])
        write_file(ACCESS_FILE, json.dumps(self.reported), 0o600)
        return len(entries) == MOST


def entry_of(login: Json, ended: int | None, boot: str, granted: Granted, offset: float) -> Json:
    """Return a session as it is reported. Times are the stack's."""
    kind, who = granted.kind(login), login["key"]
    if kind == "certificate":
        who = login["id"]
    elif kind == "central":
        who = f"{granted.central[login['key']]} {login['key']}"
    # The tunnel ends on this machine; who is at its other end is ngrok's to know.
    local = login["address"].startswith("127.") or login["address"] == "::1"
    return {
        "id": f"{boot[:8]}_{login['pid']}_{login['at']}",
        "who": one_line(who, 450),
        "from": one_line(login["address"], 64),
        "path": "ngrok" if local else "network",
        "begin": int(login["at"] + offset),
        "end": None if ended is None else int(ended + offset),
    }
