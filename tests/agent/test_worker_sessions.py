"""The worker's rules for open sessions: whose each is, what lists it as withdrawn, and which process is hit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.agent_env import WorkerModules

FIRST, SECOND, THIRD = ("SHA256:" + letter * 43 for letter in "abc")
MARIO = "arn:aws:sts::111122223333:assumed-role/data-science/mario"
LINE = "Accepted publickey for ec2-user from 10.0.0.7 port 4022 ssh2: "
CERTIFIED = f"{LINE}ECDSA-CERT {FIRST} ID {MARIO} AROAEXAMPLE:mario (serial 7) CA ECDSA {SECOND}"


@pytest.fixture
def worker(agent: ModuleType) -> WorkerModules:
    """The worker's modules, on a notebook in a folder."""
    return WorkerModules()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this user's."""
    child = subprocess.Popen(["sleep", "600"])
    yield child
    child.kill()
    child.wait()


def entry(message: str, **fields: Any) -> dict[str, Any]:
    """A line in the journal, as journalctl prints it."""
    times = {"__REALTIME_TIMESTAMP": "1780000000000000", "__MONOTONIC_TIMESTAMP": "50000000"}
    return {"_PID": "77", "_UID": str(os.getuid()), "_EXE": "/usr/sbin/sshd", "MESSAGE": message, **times, **fields}


def logins(worker: WorkerModules, *entries: Any) -> list[Any]:
    worker.journal = lambda: list(entries)
    return list(worker.read_logins({"ec2-user"}))


def login(**parts: Any) -> dict[str, Any]:
    """A login by a certificate, unless said otherwise."""
    return {"key": FIRST, "serial": "7", "id": f"{MARIO} AROAEXAMPLE:mario", "authority": SECOND, **parts}


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (CERTIFIED, {"key": FIRST, "serial": "7", "authority": SECOND, "id": f"{MARIO} AROAEXAMPLE:mario"}),
        (f"{LINE}ED25519 {FIRST}", {"key": FIRST, "serial": None, "id": None, "address": "10.0.0.7"}),
        (f"{LINE.replace('10.0.0.7', 'fe80::1%eth0')}RSA {FIRST}", {"address": "fe80::1%eth0", "port": "4022"}),
        # What an authority signed may look like what sshd writes: the last serial and the last authority are sshd's.
        (
            f"{LINE}ECDSA-CERT {FIRST} ID x (serial 1) CA ECDSA {THIRD} (serial 7) CA ECDSA {SECOND}",
            {"serial": "7", "authority": SECOND},
        ),
    ],
)
def test_a_line_of_sshds_says_who_logged_in(worker: WorkerModules, message: str, parts: dict[str, Any]) -> None:
    (found,) = logins(worker, entry(message))
    assert parts.items() <= found.items()


@pytest.mark.parametrize(
    "forged",
    [
        entry(CERTIFIED, _UID=str(os.getuid() + 1)),
        entry(CERTIFIED, _EXE="/usr/bin/logger"),
        entry(CERTIFIED, _EXE="/home/ec2-user/usr/sbin/sshd"),
        {name: value for name, value in entry(CERTIFIED).items() if name != "_EXE"},
        entry(f"Invalid user {CERTIFIED} from 10.0.0.9 port 1"),
        entry(f"{CERTIFIED} and more"),
        entry(CERTIFIED.replace("for ec2-user", "for root")),
        entry([65, 66]),  # type: ignore[arg-type]  # as journalctl has a message that is not text
        entry(CERTIFIED, _PID="x"),
        {},
    ],
)
def test_no_other_line_says_anything(worker: WorkerModules, forged: dict[str, Any]) -> None:
    assert logins(worker, forged) == []


def test_the_end_is_in_the_journal_as_well(worker: WorkerModules) -> None:
    end = entry("Disconnected from user ec2-user 10.0.0.7 port 4022", __REALTIME_TIMESTAMP="1780000060000000")
    other = entry("Disconnected from user ec2-user 10.0.0.7 port 9", _PID="78")
    found = logins(worker, entry(CERTIFIED), other, end)
    assert [(each["at"], each["ended"]) for each in found] == [(1780000000, 1780000060)]


def test_an_earlier_process_with_this_number_labels_nothing(worker: WorkerModules) -> None:
    """The journal has logins of two processes that had one number, and of a session that began between them."""
    began = worker.monotonic(0)  # of the boot
    session = worker.Process(78, 77, 100 * os.sysconf("SC_CLK_TCK"), 1, "sshd: ec2-user@pts/0")
    parent = worker.Process(77, 1, 100 * os.sysconf("SC_CLK_TCK"), 0, "sshd: ec2-user [priv]")
    old, new = ({"pid": 77, "monotonic": began + at, "key": key} for at, key in ((99, FIRST), (101, SECOND)))
    assert worker.labelled((session, parent), [old])["login"] is None
    assert worker.labelled((session, parent), [old, new])["login"]["key"] == SECOND


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, "unknown"),
        (login(), "certificate"),
        (login(authority=THIRD), "own"),  # an authority in the user's own file
        (login(serial=None, key=FIRST), "central"),
        (login(serial=None, key=SECOND), "own"),
        (login(serial=None, key=THIRD), "own"),  # central, and in the user's own file
    ],
)
def test_whose_a_session_is(worker: WorkerModules, given: Any, kind: str) -> None:
    granted = worker.Granted(frozenset({SECOND}), {FIRST: "ana", THIRD: "eva"}, frozenset({THIRD}))
    assert granted.kind(given) == kind


def test_what_was_granted_is_known_after_a_rotation(worker: WorkerModules) -> None:
    """The key and the authority that an open session came with are no longer in the reply."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBI6q1bjcIVxL5Q0TrEQ0MSGUj6bJ8sAKp7hTkgyvIJD"
    worker.remember_granted({"authorized_keys": [{"user": "ana", "keys": [key]}]})
    worker.remember_granted({"authorized_keys": [], "certificates": None})
    (found,) = worker.load_granted().central.items()
    assert found == (worker.fingerprint(key.split()[1]), "ana")


def sessions_with(worker: WorkerModules, *open_sessions: Any) -> tuple[Any, list[Any]]:
    """The worker's sessions, these open, and what is ended."""
    sessions, ended = worker.Sessions(), list[Any]()
    sessions.endable = lambda kinds: [each for each in open_sessions if each.kind in kinds and each not in ended]
    worker.load_granted = lambda: worker.Granted(frozenset({SECOND}), {THIRD: "ana"}, frozenset())
    worker.end = lambda over, reason: ended.extend(over)
    return sessions, ended


@pytest.mark.parametrize(
    ("listed", "kinds"),
    [
        ({"serials": ["7"]}, ["certificate"]),
        ({"serials": ["8"]}, []),
        ({"arns": [MARIO]}, ["certificate"]),
        ({"arns": [MARIO.rpartition("/")[0] + "/"]}, ["certificate"]),
        ({"arns": [MARIO[:-1]]}, []),
        ({"arns": [MARIO.replace("data-science/mario", "data-scienc") + "/"]}, []),
        ({"keys": [THIRD]}, ["central"]),
        ({"keys": [FIRST]}, []),  # of a certificate, whose serial counts
        ({"users": ["ana"]}, ["central"]),
        ({"users": ["eva", "Ana"]}, []),
        ({"serials": ["7"], "users": ["ana"]}, ["certificate", "central"]),
    ],
)
def test_what_is_listed_twice_a_minute_apart_ends(worker: WorkerModules, listed: dict[str, Any], kinds: Any) -> None:
    by_certificate = worker.Session(1, 1, "", "certificate", login())
    by_key = worker.Session(2, 1, "", "central", login(serial=None, key=THIRD))
    own = worker.Session(3, 1, "", "own", login(serial=None, key=FIRST))
    sessions, ended = sessions_with(worker, by_certificate, by_key, own)
    sessions.end_withdrawn(listed, 1000)
    sessions.end_withdrawn(listed, 1060)
    assert ended == [], "one cached look at the parameters could be both answers"
    sessions.end_withdrawn(listed, 1061)
    assert [each.kind for each in ended] == kinds


def test_a_list_that_was_not_whole_once_begins_again(worker: WorkerModules) -> None:
    sessions, ended = sessions_with(worker, worker.Session(2, 1, "", "central", login(serial=None, key=THIRD)))
    for listed, at in (({"users": ["ana"]}, 1000), ({"users": []}, 1030), ({"users": ["ana"]}, 1061)):
        sessions.end_withdrawn(listed, at)
    assert ended == []


def test_a_reused_number_is_not_hit(worker: WorkerModules, process: subprocess.Popen[bytes]) -> None:
    found = worker.read_process(process.pid)
    later = worker.Session(found.pid, found.start - 1, found.title, "certificate", login())
    assert worker.open_process(later) is None
    worker.end([later], "off")
    assert process.poll() is None
    own = worker.Session(found.pid, found.start, found.title, "certificate", login())
    worker.end([own], "off")
    assert process.wait(10) != 0
    assert worker.open_process(own) is None, "it has ended"


def test_a_process_of_another_user_is_not_hit(
    worker: WorkerModules, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = worker.read_process(process.pid)
    monkeypatch.setattr(os, "getuid", lambda: found.uid + 1)
    assert worker.open_process(worker.Session(found.pid, found.start, found.title, "certificate", login())) is None


def test_a_reply_that_was_kept_orders_nothing(worker: WorkerModules, agent: ModuleType) -> None:
    sent = {"end": "off", "kinds": ["certificate", "more", 7], "withdrawn": {"serials": ["1", 2], "arns": "x"}}
    assert worker.check_reply({"sessions": sent})["sessions"] == {
        "end": "off",
        "kinds": ["certificate"],
        "withdrawn": {"serials": ["1"], "arns": [], "keys": [], "users": []},
    }
    assert worker.check_reply({"sessions": {"end": "paused"}})["sessions"]["end"] is None
    Path(worker.REPLY_FILE).write_text(json.dumps({"mode": "bastion", "sync_after": 9, "sessions": sent}))
    assert worker.Worker().orders is None
