"""The stack's reply, checked against docs/protocol.md: a field that is not as specified counts as absent.

A stack that was taken over can admit keys and end access, but it reaches no terminal, no shell and no file of the
user's with more than plain text.
"""

from __future__ import annotations

import re
from typing import Any

from worker.granted import KINDS
from worker.keys import is_authority
from worker.model import Json
from worker.texts import one_line

# As the stack checks what it hands out (http_api/views.py): a word for a shell and for ssh.
WORD = re.compile(r"[A-Za-z0-9_:](?:[A-Za-z0-9._:-]*[A-Za-z0-9_:])?")
# A stack's name, the notebook's, its age, and the last revocation: nothing that ends the option or begins another.
PRINCIPAL = re.compile(r"[A-Za-z0-9-]{1,128}/[A-Za-z0-9-]{1,63}/[0-9]{1,12}(?:/[0-9]{1,12})?")
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+){0,9}")


def check_reply(reply: Json) -> Json:
    """Return `reply` with every field as specified; other fields stay as they are."""
    ngrok, mode = reply.get("ngrok"), str(reply.get("mode", "off"))
    return {
        **reply,
        "modes": [mode for mode in list_of(reply.get("modes")) if is_word(mode)],
        "mode": mode if all(is_word(word) for word in mode.split(" ")) else "off",
        "until": end_of_access(reply.get("until")),
        "ngrok": {key: text for key, text in ngrok.items() if isinstance(text, str)}
        if isinstance(ngrok, dict)
        else None,
        "bastion": check_entrance(reply.get("bastion"), "host", "user"),
        "eice": check_entrance(reply.get("eice"), "id", "dns_name"),
        "certificates": check_certificates(reply.get("certificates")),
        "authorized_keys": [user for user in list_of(reply.get("authorized_keys")) if is_user(user)],
        "problem": check_problem(reply.get("problem")),
        "sessions": check_sessions(reply.get("sessions")),
        "server_time": end_of_access(reply.get("server_time")) or 0,
    }


def is_map(value: object) -> bool:
    """Return whether a value is a JSON object."""
    return isinstance(value, dict)


def list_of(value: object) -> list[Any]:
    """Return a JSON list, or [] for anything else."""
    return value if isinstance(value, list) else []


def end_of_access(value: object) -> float | None:
    """Return the epoch seconds of an end; None for none, and the beginning of time for what is no number, as NaN."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    return value if value is None or is_number else 0  # type: ignore[return-value]


def check_entrance(value: Any, *parts: str) -> Json | None:
    """Return the parts of a bastion or an endpoint if all of them are words, with its `private_ip` or None."""
    if not is_map(value) or not all(is_word(value.get(name)) for name in parts):
        return None
    address = value.get("private_ip")
    return {**{name: value[name] for name in parts}, "private_ip": address if is_word(address) else None}


def check_certificates(value: Any) -> Json | None:
    """Return the authorities and the principal of the certificates to admit; None unless every one is as specified."""
    if not is_map(value):
        return None
    authorities, principal = list_of(value.get("authorities")), value.get("principal")
    if not authorities or len(authorities) > 4 or not isinstance(principal, str) or not PRINCIPAL.fullmatch(principal):
        return None
    if not all(isinstance(line, str) and is_authority(line) for line in authorities):
        return None
    return {"authorities": authorities, "principal": principal}


def check_sessions(value: Any) -> Json | None:
    """Return what the stack says of open sessions: the reason to end them now, which kinds, and what was withdrawn."""
    if not is_map(value):
        return None
    withdrawn = value["withdrawn"] if is_map(value.get("withdrawn")) else {}
    return {
        "end": value.get("end") if value.get("end") in ("off", "until") else None,
        "kinds": [kind for kind in KINDS if kind in list_of(value.get("kinds"))],
        "withdrawn": {field: texts_of(withdrawn.get(field)) for field in ("serials", "arns", "keys", "users")},
    }


def texts_of(value: object) -> list[str]:
    """Return the texts in a JSON list."""
    return [text for text in list_of(value) if isinstance(text, str) and text]


def is_word(value: object) -> bool:
    """Return whether a value is one plain word."""
    return isinstance(value, str) and bool(WORD.fullmatch(value))


def is_user(value: Any) -> bool:
    """Return whether a value is {"user": text, "keys": [text]}."""
    if not is_map(value) or not isinstance(value.get("user"), str):
        return False
    return isinstance(value.get("keys"), list) and all(isinstance(key, str) for key in value["keys"])


def check_problem(value: Any) -> Json | None:
    """Return {"code", "message"} with a message in one line, if there is a problem with a code."""
    if not is_map(value) or not CODE.fullmatch(str(value.get("code"))):
        return None
    return {"code": value["code"], "message": one_line(value.get("message", ""), 500)}
