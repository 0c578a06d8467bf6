"""What the embedded AWS answers to the facts that are not confirmed (docs/facts.md), chosen while it runs.

`PUT /_answers {"name-case": "ignored"}` changes some, `GET /_answers` returns all; `Emulator.answer` in process.py asks for
it. The module that plays a fact asks `of("name-case")`. Programs that are not the emulator read the file of `share`:
a notebook when it starts, ngrok's stand-ins whenever they are asked. docs/local-run.md says what each answer means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from emulator.asgi import Application, Message, Receive, Send, read_body, respond

PATH = "/_answers"

FILE = "answers.json"
"""The name, in the emulator's folder, of the file that tells other programs."""

ANSWERS: Mapping[str, tuple[str, ...]] = {
    "tag-events": ("emitted", "absent"),
    "cloudtrail-shape": ("lower-camel-case", "as-sent"),
    "key-in-trail": ("named", "absent"),
    "maintenance-states": ("none", "stays", "ends"),
    "name-case": ("exact", "ignored"),
    "script-limit": ("base64", "bytes"),
    "empty-hook": ("clears", "refused", "ignored"),
    "time-precision": ("milliseconds", "seconds-in-lists"),
    "delete-attached": ("refused", "deletes"),
    "expired-page": ("validation-exception", "other-code", "never"),
    "start-permissions": ("start-only", "all"),
    "parameters-by-path": ("path", "below"),
    "describe-rate": ("unthrottled", "throttled"),
    "fifo-rate": ("unthrottled", "throttled"),
    "sshd-runs": ("active", "masked", "absent"),
    "systemd-on-start": ("starts", "fails"),
    "imds-role": ("execution-role", "other-name", "other-credentials"),
    "selinux-port": ("allowed", "refused"),
    "ngrok-merge": ("merges", "replaces"),
    "ngrok-redirect": ("direct", "redirects"),
    "endpoint-refusals": ("as-known", "other"),
    "endpoint-pings": ("pong", "silent"),
    "path-as-sent": ("as-sent", "decoded"),
    "filter-terms": ("words", "substrings"),
    "platform-refusal": ("validation-exception", "other-code"),
    "eice-interface": ("reaches", "refused"),
}
"""The possible answers to each fact, the default first."""

_given: dict[str, str] = {}
_shared: list[Path] = []


class UnknownAnswerError(ValueError):
    """A fact, or an answer to one, that the register does not have."""


def of(fact: str) -> str:
    """The answer that is given now. Raises KeyError for what is no fact."""
    return _given.get(fact, ANSWERS[fact][0])


def given() -> dict[str, str]:
    """The answers to all facts."""
    return {fact: of(fact) for fact in ANSWERS}


def give(changes: Mapping[str, str]) -> None:
    """Give these answers from now on; all others stay. Raises UnknownAnswerError, and then nothing changes."""
    for fact, answer in changes.items():
        if fact not in ANSWERS:
            raise UnknownAnswerError(f"no fact is called {fact!r}; docs/facts.md has {', '.join(sorted(ANSWERS))}")
        if answer not in ANSWERS[fact]:
            raise UnknownAnswerError(f"{answer!r} is no answer to {fact}, which has {', '.join(ANSWERS[fact])}")
    _given.update(changes)
    for file in _shared:
        _write(file)


def share(home: Path) -> None:
    """Keep the answers in a file in the folder `home`, from now on."""
    _shared[:] = [home / FILE]
    _write(home / FILE)


def read(file: Path) -> dict[str, str]:
    """The answers in a file that `share` keeps. Raises OSError."""
    return dict(json.loads(file.read_text()))


def _write(file: Path) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(given(), indent=2))
    new.replace(file)


def with_answers(inner: Application) -> Application:
    """The ASGI application `inner`, and the path at which answers are changed."""

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await inner(scope, receive, send)
            return
        try:
            if scope["method"] == "PUT":
                give(_changes(await read_body(receive)))
        except UnknownAnswerError as problem:
            await respond(send, 400, {"message": str(problem)})
            return
        await respond(send, 200, given())

    return application


def _changes(body: bytes) -> dict[str, str]:
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise UnknownAnswerError('the body is no JSON object such as {"name-case": "ignored"}')
    return asked
