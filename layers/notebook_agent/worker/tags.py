"""The notebook's own tags, parsed as the stack parses them (model/spec.py, docs/tags.md): the fallback without it."""

from __future__ import annotations

import datetime
import os
import re

from worker.model import Json
from worker.modes import MODES

MOST_MODES = 3

NGROK_URL_TAG = re.compile(
    r"tcp://(?=[^:]{1,253}:)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+:([1-9][0-9]{0,4})"
)
UNTIL_TAG = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(?:Z|([+-][0-9]{2}):?([0-9]{2}))?", re.I
)


def parse_tags(tags: dict[str, str]) -> Json:
    """Return what the notebook's own tags request: {"modes", "mode", "until", "ngrok": {"url"}, "users"}.

    One invalid tag turns everything off: without the stack nothing can report it, so less access is given, not more.
    """
    key = os.environ.get("NOTEBOOK_SSH_TAG_KEY") or "ssh"
    value = {
        part: tags.get(key + part, "").strip() for part in ("", "-ngrok-url", "-users", "-until", "-restart", "-wake")
    }
    keys = {(key + part).lower(): key + part for part in ("-ngrok-url", "-users", "-until", "-restart", "-wake")}
    other_case = any(
        keys.get(tag.lower(), tag) != tag and text.strip().lower() not in ("", "off") for tag, text in tags.items()
    )
    off: Json = {"modes": [], "mode": "off", "until": None, "ngrok": {"url": None}, "users": []}
    modes, url, users = value[""].lower().split(), value["-ngrok-url"].lower(), value["-users"].split()
    match = NGROK_URL_TAG.fullmatch(url)
    valid = (
        0 < len(modes) <= MOST_MODES
        and len(set(modes)) == len(modes)
        and set(modes) <= set(MODES)
        and not other_case
        and (not url or "ngrok" not in modes or (match and int(match[1]) <= 65535))
        and all(re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", name) for name in users)
        and value["-restart"].lower() in ("", "now")
        and value["-wake"].lower() in ("", "yes")
    )
    if not valid:
        return off
    try:
        until = parse_time(value["-until"]) if value["-until"] else None
    except ValueError:
        return off
    users = list(dict.fromkeys(users))
    ngrok = {"url": url or None if "ngrok" in modes else None}
    return {"modes": modes, "mode": " ".join(modes), "until": until, "ngrok": ngrok, "users": users}


def parse_time(text: str) -> int:
    """Return the epoch seconds of a date and time in ISO 8601, UTC unless it has a zone. ValueError for other text."""
    match = UNTIL_TAG.fullmatch(text)
    if not match:
        raise ValueError(text)
    day, minute, second, hours, minutes = match.groups()
    zone = f"{hours}:{minutes}" if hours else "+00:00"
    return int(datetime.datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{zone}").timestamp())


def apply_tags(reply: Json, tags: dict[str, str]) -> Json:
    """Return the saved reply, changed to what the tags request. Users whom they do not name are not admitted."""
    requested = parse_tags(tags)
    users = requested.pop("users")
    admitted = [user for user in reply.get("authorized_keys") or [] if user["user"] in users]
    return {**reply, **requested, "authorized_keys": admitted}
