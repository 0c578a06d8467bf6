"""Certificates and SSH sessions in the simulation: who logs in where, what a notebook does at each answer, what must hold.

The notebook here follows docs/protocol.md and nothing of the worker's code; sshd is the comparison of principals and times.
What the tags asked for is remembered at each change, and a certificate is taken apart by its bytes.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulation.account import NUMBER, Notebook
from simulation.invariants import CLOCKS_APART, RECENTLY
from support.builders import HOST_KEY, a_lambda_context, an_api_event

from issue_certificate import handler as issue_function
from notebook_ssh.model.spec import NotebookSpec, parse_spec

if TYPE_CHECKING:
    from simulation.run import Run

AUTHORITY = f"ecdsa-sha2-nistp256 {b64encode(b'the public key that KMS has').decode()}"
ROUTE = "/notebooks/{name}/certificate"
AGAIN_S = 61
PEOPLE = ("ana", "mario")
ENDED_BY_STACK = ("certificate", "central")


@dataclass(frozen=True, eq=False)
class Certificate:
    """A certificate, and the notebook that it was asked for: this one, not another of its name. Times are epoch seconds."""

    notebook: Notebook
    caller: str
    serial: str
    principals: tuple[str, ...]
    valid_before: int


@dataclass(eq=False)
class Machine:
    """What a notebook's agent and sshd know since its start.

    admits: the principal that a certificate must have. admitted_at: when an answer last let it admit some.
    modes: the ways that it was told to keep ready.
    """

    boots: int
    admits: str | None = None
    until: int | None = None
    admitted_at: int = 0
    sessions: list[Certificate] = field(default_factory=list)
    listed: dict[tuple[str, str], int] = field(default_factory=dict)
    answers: int = 0
    modes: tuple[str, ...] = ()


@dataclass
class Logins:
    """Every certificate and every session."""

    run: Run
    certificates: list[Certificate] = field(default_factory=list)
    machines: dict[tuple[str, int], Machine] = field(default_factory=dict)
    specs: dict[tuple[str, int], list[tuple[int, NotebookSpec]]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def machine(self, notebook: Notebook) -> Machine:
        """The notebook's machine: a new one at each start."""
        key = notebook.name, notebook.created
        found = self.machines.get(key)
        if found is None or found.boots != notebook.boots:
            found = self.machines[key] = Machine(notebook.boots)
        return found

    # ---- what people do

    def ask(self, notebook: Notebook, person: str) -> None:
        """Ask for a certificate."""
        event = an_api_event("POST", ROUTE, notebook.name, path=f"/notebooks/{notebook.name}/certificate")
        event["body"] = json.dumps({"public_key": HOST_KEY})
        arn = f"arn:aws:sts::{NUMBER}:assumed-role/people/{person}"
        event["requestContext"] |= {"accountId": NUMBER}
        event["requestContext"]["identity"] |= {"accountId": NUMBER, "userArn": arn, "caller": f"AROAEXAMPLE:{person}"}

        def job() -> Any:
            answer = issue_function.handle(event, a_lambda_context(), clock=self.run.time)
            if answer["statusCode"] == 201:
                self._got(notebook, arn, json.loads(answer["body"]))
            return answer

        self.run.jobs.append(("issue", job))

    def _got(self, notebook: Notebook, caller: str, body: dict[str, Any]) -> None:
        principals, valid_before = read_certificate(body["certificate"])
        seen = self.run.baton.at_work.seen
        until = seen.get("spec", {}).get("M", {}).get("until", {}).get("N")
        self.run.hold(
            until is None or valid_before <= int(until), f"a certificate for {notebook.name} outlives its end"
        )
        self.run.hold(valid_before <= self.run.now // 1000 + 3600 + 3, f"a certificate for {notebook.name} never ends")
        made = Certificate(notebook, caller, body["serial"], principals, valid_before)
        self.certificates.append(made)
        self.run.at(self.run.now + 1_000, lambda: self._log_in_at_once(made))
        self.run.invariants.checked["certificates"] += 1

    def _log_in_at_once(self, certificate: Certificate) -> None:
        if self.run.account.notebooks.get(certificate.notebook.name) is certificate.notebook:
            self.log_in(certificate.notebook, certificate)

    def log_in(self, notebook: Notebook, certificate: Certificate) -> bool:
        """Try a certificate: sshd compares the principal and the time. Whether a session began."""
        machine, now = self.machine(notebook), self.run.now // 1000
        over = machine.until is not None and now >= machine.until
        if notebook.status != "InService" or over or machine.admits not in certificate.principals:
            return False
        if now >= certificate.valid_before:
            return False
        self.run.hold(
            certificate.notebook is notebook, f"a certificate of {certificate.notebook.name} opens {notebook.name}"
        )
        machine.sessions.append(certificate)
        self.run.invariants.checked["logins"] += 1
        return True

    def revoke(self, text: str) -> None:
        """Withdraw a serial or a caller, or undo it."""
        self.run.account.revoked[text] = self.run.now
        self.revoked.add(text)

    # ---- what happens on a notebook

    def tagged(self, notebook: Notebook, tags: Mapping[str, str]) -> None:
        """The notebook's tags are these from now on."""
        history = self.specs.setdefault((notebook.name, notebook.created), [])
        history.append((self.run.now, parse_spec(tags, "ssh")))

    def answered(self, notebook: Notebook, reply: Mapping[str, Any]) -> None:
        """The agent has an answer of the stack's."""
        machine = self.machine(notebook)
        machine.answers += 1
        machine.until = reply["until"]
        machine.modes = tuple(reply["modes"])
        machine.admits = (reply.get("certificates") or {}).get("principal") if reply["modes"] else None
        orders = reply.get("sessions")
        if orders and orders["end"]:
            self._ended(notebook, machine, orders["end"])
        if orders:
            self._withdrawn(machine, orders["withdrawn"], reply["server_time"])
        if machine.admits:
            machine.admitted_at = self.run.now

    def _ended(self, notebook: Notebook, machine: Machine, reason: str) -> None:
        if machine.sessions:
            now = self.run.now
            asked = list(self._asked(notebook, since=machine.admitted_at - RECENTLY))
            if reason == "off":
                true = any(spec == NotebookSpec() for spec in asked)
            else:
                true = any(spec.until is not None and spec.until * 1000 <= now + CLOCKS_APART for spec in asked)
            self.run.hold(true, f"sessions of {notebook.name} were ended as {reason}, and its tags asked for {asked}")
            self.run.invariants.checked[f"sessions ended: {reason}"] += len(machine.sessions)
        machine.sessions.clear()

    def _withdrawn(self, machine: Machine, withdrawn: Mapping[str, list[str]], now: int) -> None:
        listed = {(name, value) for name, values in withdrawn.items() for value in values}
        machine.listed = {item: machine.listed.get(item, now) for item in listed}
        sure = {value for (_, value), first in machine.listed.items() if now - first >= AGAIN_S}
        for each in [each for each in machine.sessions if sure & {each.serial, each.caller}]:
            true = self.revoked & {each.serial, each.caller}
            self.run.hold(bool(true), f"a session of {each.caller} was ended, and nobody withdrew it")
            machine.sessions.remove(each)
            self.run.invariants.checked["sessions ended: withdrawn"] += 1

    def _asked(self, notebook: Notebook, since: int) -> Iterator[NotebookSpec]:
        """What the tags have asked for at any time since then (epoch milliseconds)."""
        history = self.specs.get((notebook.name, notebook.created), [])
        for (_, spec), (ended, _) in zip(history, [*history[1:], (self.run.now + 1, NotebookSpec())], strict=True):
            if ended > since:
                yield spec

    # ---- once it is calm

    def settled(self, notebook: Notebook) -> None:
        """The notebook has reported in the calm: it admits certificates if the tags ask for SSH, and else no session is left."""
        machine, now = self.machine(notebook), self.run.now // 1000
        spec, record = parse_spec(notebook.tags, "ssh"), self.run.table.record(notebook.name)
        asks = bool(spec.effective_modes(now))
        # An agent keeps the ways that it was told, and ends every other (tests/agent/test_agent_paths.py).
        kept = machine.modes == spec.modes if asks else {*machine.modes} <= {*spec.modes}
        self.run.hold(kept, f"{notebook.name} keeps {machine.modes}, and asks for {spec}")
        self.run.invariants.checked[f"ways kept: {len(machine.modes)}"] += 1
        self.run.hold(asks or machine.admits is None, f"{notebook.name} admits certificates, and asks for {spec}")
        for certificate in self.certificates:
            if not asks:
                self.run.hold(not self.log_in(notebook, certificate), f"{notebook.name} lets in after its end")
            elif certificate.serial in self.revoked:
                self.run.hold(not self.log_in(notebook, certificate), f"{notebook.name} lets in what was withdrawn")
        if record is not None and spec == NotebookSpec():
            self.run.hold(not machine.sessions, f"a session of {notebook.name} outlived its tag")
        if self.run.certificates:
            self.run.invariants.checked[
                "notebooks that have heard the end" if not asks else "notebooks that admit"
            ] += 1


def read_certificate(line: str) -> tuple[tuple[str, ...], int]:
    """The principals, and when it ends (epoch seconds), of an Ed25519 certificate (OpenSSH, PROTOCOL.certkeys)."""
    rest = b64decode(line.split()[1])

    def text() -> bytes:
        nonlocal rest
        length = int.from_bytes(rest[:4], "big")
        found, rest = rest[4 : 4 + length], rest[4 + length :]
        return found

    for _ in range(3):  # type, nonce, key
        text()
    rest = rest[12:]  # serial, and what it is for
    text()  # key id
    names, rest_of_it = text(), rest
    valid_before = int.from_bytes(rest_of_it[8:16], "big")
    principals = []
    while names:
        length = int.from_bytes(names[:4], "big")
        principals.append(names[4 : 4 + length].decode())
        names = names[4 + length :]
    return tuple(principals), valid_before
