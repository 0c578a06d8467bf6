"""Ask the stacks where a notebook is; wake it and wait for it where that is wanted; keep the list of names fresh."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from notebook_ssh_client import proxy, ssh_files, stacks
from notebook_ssh_client.api import Api, Refused, login_command
from notebook_ssh_client.failures import FAILED, NOT_ALLOWED, NOT_CONNECTABLE, UNKNOWN_NOTEBOOK, Failure
from notebook_ssh_client.remembered import Place
from notebook_ssh_client.stacks import Stack

WAIT_LIMIT = 15 * 60
"""Seconds to wait for a notebook that is starting. SageMaker takes three to eight minutes as a rule."""

ASK_EVERY = 5.0
SAY_EVERY = 30.0
"""Seconds between two questions, and between two lines of progress that say the same."""

NAMES_AGE = 600
"""Seconds after which the list of names is asked for again, on the side."""

HAS_ADDRESS = frozenset({"connected", "reconnecting", "stale"})
"""Statuses in which the last address is worth trying."""

ON_ITS_WAY = frozenset({"starting", "reconnecting"})
"""Statuses that become `connected` by themselves."""

HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
HOST_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}")
"""What an answer may hold where it becomes words for ssh or lines of its files: nothing else gets that far."""


@dataclass(frozen=True)
class Found:
    """One notebook as its stack describes it: the stack, the name, and the API's answer (docs/api.md)."""

    stack: Stack
    api: Api
    name: str
    answer: dict[str, Any]

    @property
    def status(self) -> str:
        """One of the words in docs/statuses.md."""
        return str(self.answer.get("status", ""))

    def sentence(self) -> str:
        """What is, and what to do, in the stack's own sentences."""
        told = [str(self.answer.get(field) or "") for field in ("message", "next_step")]
        return " ".join(filter(None, told)) or f"{self.name} is {self.status or 'unknown'}."


def ask(home: str, host: str) -> Found:
    """What the stacks know of the notebook that `host` means.

    Raises Failure: nobody knows it, this identity may not ask, or no answer came. A stack that fails is never taken
    for one that does not know the notebook: the next stack's notebook of that name is another machine.
    """
    name, candidates = stacks.meant_by(host, stacks.load(home).stacks)
    for stack in candidates:
        api = Api(stack)
        try:
            return Found(stack, api, name, read_notebook(api, name))
        except Refused as refused:
            if refused.status != 404 or not refused.code:
                raise explain(refused, stack) from refused
    raise _unknown(home, name, candidates)


def read_notebook(api: Api, name: str) -> dict[str, Any]:
    """`GET /notebooks/{name}`. Raises Refused (404: unknown) or Failure."""
    answer = api.get(f"/notebooks/{name}")
    if not isinstance(answer, dict) or "status" not in answer:
        raise Failure(f"the API describes {name} in a way that this client does not understand; update notebook-ssh")
    return answer


def find(home: str, host: str, *, wake: bool = False) -> Place:
    """Where the notebook is, by its stack. With `wake`, waits for one that starts, and starts one that may be.

    Raises Failure with the notebook's status and what to do about it when there is no address to be had.
    """
    found = ask(home, host)
    if wake and not _usable(found):
        found = wait(found, start=bool(found.answer.get("wake")))
    if not _usable(found):
        raise Failure(found.sentence(), NOT_CONNECTABLE)
    return place_in(found)


def start(home: str, host: str, *, limit: float = WAIT_LIMIT) -> Found:
    """Start the notebook if it is stopped, and wait until it can be reached. Raises Failure when it cannot be."""
    found = wait(ask(home, host), start=True, limit=limit)
    if not _usable(found):
        raise Failure(found.sentence(), NOT_CONNECTABLE)
    return found


def diagnose(home: str, host: str, *, as_json: bool) -> tuple[str, bool]:
    """The stack's diagnosis of a notebook with one more step, the way from this machine; and whether that one is ok."""
    found = ask(home, host)
    path = f"/notebooks/{found.name}/doctor"
    verdict, reason = way_from_here(found)
    try:
        if not as_json:
            text = found.api.get_text(path).rstrip("\n")
            return f"{text}\nFrom this machine: {verdict}: {reason}", verdict == "ok"
        diagnosis = found.api.get(path)
    except Refused as refused:
        raise explain(refused, found.stack) from refused
    here = {"hop": "from-here", "verdict": verdict, "since": None, "reason": reason, "remedy": ""}
    return json.dumps({**diagnosis, "hops": [*diagnosis["hops"], here]}, indent=2), verdict == "ok"


def way_from_here(found: Found) -> tuple[str, str]:
    """The verdict (ok, waiting or failed) and the reason for the last step: does the notebook greet this machine?"""
    if not _usable(found):
        return "waiting", "there is no address to try yet"
    try:
        place = place_in(found)
        link, said = proxy.reach(place, proxy.PATIENCE_FRESH)
    except Failure as failure:
        return "failed", str(failure)
    except OSError as error:
        return "failed", proxy.unreachable(place, error)
    link.close()
    greeting = "".join(character for character in said.decode("ascii", "ignore").strip() if character.isprintable())
    return "ok", f"{place.host} port {place.port} greets with {greeting}"


def wait(
    found: Found,
    *,
    start: bool,
    limit: float = WAIT_LIMIT,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Found:
    """`found` once it can be reached, or as it was last when waiting is of no use.

    start: ask the stack to start it when it is stopped. limit: seconds. Progress goes through `say`.
    Raises Failure when the time is over.
    """
    began = clock()
    said, said_at, asked_to_start = "", began, False
    while not _usable(found):
        if found.status == "stopped" and start and not asked_to_start:
            asked_to_start = _start(found)
        elif found.status not in ON_ITS_WAY and not (found.status == "stopped" and start):
            return found
        now = clock()
        if now - began > limit:
            raise Failure(f"{found.sentence()} It was not ready after {_minutes(limit)}.", NOT_CONNECTABLE)
        if found.sentence() != said or now - said_at >= SAY_EVERY:
            said, said_at = found.sentence(), now
            say(f"notebook-ssh: {said} Waiting ({_minutes(now - began)} of at most {_minutes(limit)})")
        pause(ASK_EVERY)
        found = _again(found)
    return found


def place_in(found: Found) -> Place:
    """The address in an answer, every word of it checked before ssh sees it."""
    answer = found.answer
    keys = [_checked(found, "host key", HOST_KEY, key) for key in answer.get("host_keys") or ()]
    if not keys:
        raise Failure(
            f"{found.name} has not reported its host keys yet, so it cannot be verified; try again in a minute, "
            f"else run: notebook-ssh doctor {found.name}",
            NOT_CONNECTABLE,
        )
    return Place(
        host=_checked(found, "host", HOST, answer.get("host")),
        port=_port(found, answer.get("port")),
        host_keys=tuple(keys),
        bastion=_bastion(found, answer.get("jump")),
        looked_up=int(time.time()),
    )


def explain(refused: Refused, stack: Stack) -> Failure:
    """A refusal as one sentence with the remedy."""
    message = refused.message.rstrip(".")
    if refused.status == 409 or refused.code == "not-wakeable":
        return Failure(refused.message, NOT_CONNECTABLE)
    if refused.status in (401, 403):
        lowered = message.lower()
        login = login_command(stack.profile)
        if "expired" in lowered:
            return Failure(f"your AWS credentials have expired; run: {login}", NOT_ALLOWED)
        if "token" in lowered or "signature" in lowered:
            return Failure(f"AWS does not accept your credentials ({message}); run: {login}", NOT_ALLOWED)
        who = f"profile {stack.profile}" if stack.profile else "your AWS identity"
        return Failure(
            f"stack {stack.name} does not let {who} ask ({message}). If these are the right credentials, the stack's "
            "admin decides by its parameters who may look notebooks up; inside a VPC with a private execute-api "
            "endpoint, a public API cannot be reached at all",
            NOT_ALLOWED,
        )
    if refused.status == 404 and not refused.code:
        return Failure(f"{stack.api} is not the API of a notebook-ssh stack ({message}); run: notebook-ssh setup")
    return Failure(f"stack {stack.name} says: {refused.message}", FAILED)


def read_names(stack: Stack) -> list[dict[str, Any]]:
    """`GET /notebooks`: one object a notebook. Raises Refused or Failure."""
    answer = Api(stack).get("/notebooks")
    if not isinstance(answer, list):
        raise Failure("the API lists notebooks in a way that this client does not understand; update notebook-ssh")
    return [item for item in answer if isinstance(item, dict) and stacks.NOTEBOOK_NAME.fullmatch(str(item.get("name")))]


def read_names_or_fail(stack: Stack) -> None:
    """Raises Failure unless the stack answers this person."""
    try:
        read_names(stack)
    except Refused as refused:
        raise explain(refused, stack) from refused


def refresh_names(home: str) -> list[tuple[Stack, list[dict[str, Any]] | Failure]]:
    """Ask every stack for its notebooks, write the names for ssh, and answer what each stack said.

    A stack that gives no answer keeps the names it had.
    """
    names = stacks.load_names(home)
    told: list[tuple[Stack, list[dict[str, Any]] | Failure]] = []
    known = stacks.load(home)
    for stack in known.stacks:
        try:
            listed = read_names(stack)
        except Refused as refused:
            told.append((stack, explain(refused, stack)))
        except Failure as failure:
            told.append((stack, failure))
        else:
            told.append((stack, listed))
            names[stack.label] = [str(item["name"]) for item in listed if item.get("mode") != "off"]
    labels = [stack.label for stack in known.stacks]
    names = {label: names[label] for label in labels if label in names}
    stacks.save_names(home, names)
    ssh_files.write_hosts(home, known.ssh_config, names, labels)
    return told


def refresh_names_meanwhile(home: str) -> None:
    """Refresh the names beside a connection that is being made, when they are old. Its failure is nobody's concern."""
    if stacks.names_age(home, time.time()) < NAMES_AGE:
        return

    def quietly() -> None:
        try:
            refresh_names(home)
        except (OSError, Failure):
            return  # the connection matters; the next look-up tries again

    threading.Thread(target=quietly, daemon=True).start()


def forget_all(home: str) -> None:
    """Remember no address any more: what a name means may have changed."""
    shutil.rmtree(os.path.join(home, "remembered"), ignore_errors=True)


def _usable(found: Found) -> bool:
    return found.status in HAS_ADDRESS and bool(found.answer.get("host"))


def _start(found: Found) -> bool:
    """Ask for the start. False while the stack says that it is too early (409), for example still stopping."""
    try:
        found.api.post(f"/notebooks/{found.name}/start")
    except Refused as refused:
        if refused.status == 409:
            return False
        raise explain(refused, found.stack) from refused
    return True


def _again(found: Found) -> Found:
    try:
        return Found(found.stack, found.api, found.name, read_notebook(found.api, found.name))
    except Refused as refused:
        raise explain(refused, found.stack) from refused


def _unknown(home: str, name: str, candidates: list[Stack]) -> Failure:
    from difflib import get_close_matches

    names = stacks.load_names(home)
    listed = {other.lower(): other for stack in candidates for other in names.get(stack.label, [])}
    close = [listed[match] for match in get_close_matches(name.lower(), listed, n=3)]
    asked = " or ".join(f"{stack.name} ({stack.region})" for stack in candidates)
    hint = f"did you mean {' or '.join(close)}?" if close else "run: notebook-ssh list"
    return Failure(f"no notebook called {name} is known to stack {asked}; {hint}", UNKNOWN_NOTEBOOK)


def _checked(found: Found, what: str, pattern: re.Pattern[str], value: object) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise Failure(f"the API gives {found.name} the {what} {value!r}, which ssh cannot use; tell the stack's admin")


def _bastion(found: Found, jump: object) -> tuple[str, str, int] | None:
    """(host, user, port) of what the API writes as `user@host` or `user@host:port`."""
    if jump is None:
        return None
    user, _, rest = str(jump).rpartition("@")
    host, _, port = rest.partition(":")
    return (
        _checked(found, "bastion", HOST, host),
        _checked(found, "bastion's user", USER, user),
        _port(found, int(port) if port.isdecimal() else 22),
    )


def _port(found: Found, value: object) -> int:
    if isinstance(value, int) and 0 < value < 65536:
        return value
    raise Failure(f"the API gives {found.name} the port {value!r}, which ssh cannot use; tell the stack's admin")


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
