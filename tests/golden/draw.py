"""Draws inputs for `cases.jsonl.xz`, and stores what the code makes of them.

    PYTHONPATH=layers/core:tests python -m golden.draw

The numbers are drawn so that they meet: times lie around the limits that the code compares them with, names are few,
and parts of one input speak of the same things. What is stored is the code's behaviour on the day it was drawn, so it
is drawn again only for behaviour that is new, never to make a comparison pass.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from golden.codec import decode, encode
from golden.subjects import SUBJECTS
from support.builders import HOST_KEY, NOW, RSA_KEY

from notebook_ssh.errors import Problem
from notebook_ssh.model import network
from notebook_ssh.model.managed_block import Block, Inserted, insert_block
from notebook_ssh.model.record import (
    Network,
    NotebookState,
    Phase,
    Record,
    RejectedKey,
    Report,
    Restart,
    RestartStep,
    Route,
)
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.model.stack import Bastion
from notebook_ssh.planning import drift, observation as observed, script

CASES = Path(__file__).with_name("cases.jsonl.xz")
MANY = {
    "tags": 1_200,
    "record": 6_000,
    "notebook": 4_500,
    "configuration": 1_600,
    "bastion": 1_200,
    "script": 2_200,
    "report": 1_200,
    "keys": 600,
    "event": 700,
    "fleet": 800,
}
"""How many cases of each kind: 20,000."""

STACK = "team-ssh"
ACCOUNT = "123456789012"
NAMES = ("demo", "Box-7", "team-a-gpu", "x", "team-a-2")
CONFIGURATIONS = ("better-sagemaker", "team-setup", "gpu")
GROUPS = ("sg-0bastion", "sg-0a", "sg-0b", "sg-0c", "sg-0gone")
CODES = [
    "ngrok-token-missing",
    "ngrok-token-invalid",
    "ngrok-card-required",
    "no-bastion",
    "bastion-gone",
    "not-in-vpc",
    "other-vpc",
    "group-gone",
    "client-cidr-invalid",
    "rule-refused",
    "keys-unreadable",
    "central-key-missing",
    "sshd-down",
    "api-forbidden",
    "files",
    "agent-failed",
    "agent-stuck",
    "config-too-large",
    "config-not-shell",
    "block-damaged",
    "something-new",
]
EMPTY_SCRIPT = script.EMPTY_SCRIPT


class Draw:
    """One case's chance."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)

    def one(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def some(self, choices: Sequence[Any], most: int | None = None) -> tuple[Any, ...]:
        return tuple(self.chance.sample(choices, self.chance.randint(0, min(most or len(choices), len(choices)))))

    def time(self) -> int:
        """Mostly around the limits that are compared with: a sync, a start, a wake, a stop, a day."""
        limit: int = self.one(0, 10, 60, 300, 755, 756, 900, 1_800, 86_400)
        return NOW - limit + int(self.one(-1, 0, 1, self.chance.randint(-30, 30)))

    def maybe(self, share: float, value: Callable[[], Any]) -> Any:
        return value() if self.often(share) else None

    def problem(self) -> Problem:
        code = self.one(*CODES)
        return Problem(code, self.one(f"It is {code}.", f"about {code}", "Done\x1b[31m!", "", "Why?"))

    # ---- tags ----------------------------------------------------------------------------------

    def tag_set(self, key: str) -> dict[str, str]:
        told = {}
        words = ("ngrok", "bastion", "off", "NGROK", " bastion ", "", "ngrok bastion", "eice", "ssh\u00e9", "x" * 100)
        if self.often(0.95):
            told[key] = self.chance.choices(words, (8, 8, 2, 2, 1, 1, 1, 1, 1, 1))[0]
        parts = {
            "ngrok-url": ("tcp://1.tcp.ngrok.io:12345", "TCP://2.tcp.eu.ngrok.io:1", "tcp://h:0", "http://a.b:1", ""),
            "users": ("mario", "mario ana mario", "  ", "m!", "a" * 65, "a@b.c _x"),
            "restart": ("now", "NOW", "later", ""),
            "until": (
                "2027-01-15T08:00Z",
                "2027-01-15T08:00:01Z",
                "2027-01-15 09:00+01:00",
                "2026-12-24",
                "2027-02-30T00:00Z",
                "soon",
                "1970-01-01T00:00Z",
                "9999-12-31T23:59:59Z",
                "2027-01-15T07:59:59",
            ),
            "wake": ("yes", "YES", "no"),
            "status": ("connected", "off"),
            "address": ("0.tcp.ngrok.io:17887",),
        }
        for part, values in parts.items():
            if self.often(0.25):
                told[f"{key}-{part}"] = self.one(*values)
        if self.often(0.2):
            told["Env"] = "dev"
        return told

    def tags(self) -> Any:
        key = self.one("ssh", "ssh", "team:ssh")
        return {"tags": self.tag_set(key), "tag_key": key, "now": self.time() + self.one(0, 900)}

    # ---- records -------------------------------------------------------------------------------

    def spec(self) -> NotebookSpec:
        if self.often(0.08):
            return NotebookSpec()
        if self.often(0.06):
            return NotebookSpec(problem=Problem("invalid-tag", "The tag ssh is “x”, but it can only be ngrok."))
        mode = self.chance.choices((Mode.NGROK, Mode.BASTION), (5, 5))[0]
        return NotebookSpec(
            (mode,),
            self.maybe(0.15, lambda: "tcp://1.tcp.ngrok.io:12345"),
            self.some(("mario", "ana"), 2) if self.often(0.3) else (),
            self.maybe(0.2, lambda: self.time() + self.one(0, 60, 900, 5_000)),
            self.often(0.25),
            self.often(0.3),
        )

    def network(self) -> Network:
        if self.often(0.2):
            return Network()
        return Network("subnet-1", self.some(GROUPS, 3), self.maybe(0.85, lambda: f"eni-{self.one(*NAMES).lower()}"))

    def route(self) -> Route:
        return Route(
            self.often(0.7),
            self.maybe(0.8, lambda: "10.0.1.5"),
            self.one(0, self.time()),
            self.maybe(0.2, self.problem),
        )

    def routes(self, chance: float) -> dict[Mode, Route]:
        route = self.maybe(chance, self.route)
        return {Mode.BASTION: route} if route else {}

    def report(self, modes: tuple[Mode, ...]) -> Report:
        told = modes if self.often(0.85) else self.one((), *((mode,) for mode in Mode))
        phase = self.chance.choices(list(Phase), (1, 4, 8, 3))[0]
        first_connected = Mode.NGROK in told and self.often(0.8)
        return Report(
            boot=self.one("boot-1", "boot-2"),
            booted_at=self.time(),
            sequence=self.chance.randint(1, 5),
            received_at=NOW - self.one(0, 1, 10, 60, 299, 754, 755, 756, 2_000),
            modes=told,
            phase=phase,
            agent=self.one("1.0", ""),
            host=self.one("0.tcp.ngrok.io", "3.tcp.eu.ngrok.io", "-oops") if first_connected else None,
            port=self.one(17887, 22, 1) if first_connected else None,
            host_keys=self.some((HOST_KEY, RSA_KEY, "bad key; rm")),
            keys_own=self.one(0, 0, 1, 2),
            keys_central=self.one(0, 0, 1),
            rejected=(RejectedKey(3, "not base64"), RejectedKey(7, "an\x07 RSA key"))[: self.one(0, 0, 0, 1, 2)],
            sessions=self.one(0, 1),
            active_at=self.maybe(0.3, self.time),
            problem=self.problem() if self.often(0.7 if phase is Phase.FAILED else 0.15) else None,
            connected_since=self.maybe(0.7, self.time),
            phase_since=self.one(0, self.time(), self.time()),
        )

    def record(self, name: str | None = None) -> Record:
        spec, state = self.spec(), self.chance.choices(list(NotebookState), (2, 12, 2, 4, 1, 1, 1))[0]
        name = name or self.one(*NAMES)
        lifecycle_config = self.maybe(0.85, lambda: self.one(*CONFIGURATIONS))
        since = self.time()
        running = state in (NotebookState.IN_SERVICE, NotebookState.PENDING)
        return Record(
            name=name,
            arn=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:notebook-instance/{name.lower()}",
            role=self.one("demo-role", "demo-role", "other-role", ""),
            spec=spec,
            state=state,
            state_since=since,
            lifecycle_config=lifecycle_config,
            block_since=self.maybe(0.7, self.time),
            network=self.network(),
            problem=self.maybe(0.12, self.problem),
            observed_hash=self.one("", "0123456789abcdef"),
            observed_at=self.one(0, self.time()),
            started_at=self.maybe(0.8, lambda: self.one(since, since - 100, self.time())) if running else None,
            attached_config=lifecycle_config if self.often(0.2) else self.maybe(0.05, lambda: "better-sagemaker"),
            attached_hash=self.one("", "f" * 12),
            restart=self.maybe(
                0.12, lambda: Restart(self.one(*RestartStep), self.one(since, self.time()), self.time())
            ),
            planned=("attach better-sagemaker to demo: why",) if self.often(0.05) else (),
            status_tags_at=self.one(0, self.time()),
            notified_status=self.one("", "off", "connected", "error: agent-silent", "starting"),
            spec_changed_at=self.maybe(0.8, self.time),
            first_connected=self.often(0.4),
            wake_at=self.maybe(0.3, self.time),
            routes=self.routes(0.75 if Mode.BASTION in spec.modes else 0.1),
            report=self.maybe(0.75, lambda: self.report(spec.modes)),
        )

    def bastion_host(self) -> Bastion | None:
        if self.often(0.12):
            return None
        return Bastion(
            self.one("bastion.example.com", "127.0.0.1:2222", "2001:db8::5", "b x"),
            self.one("jumper", "ec2-user"),
            self.one("sg-0bastion", "sg-0bastion", "sg-0bastion", "sg-0gone"),
            self.one("vpc-1", "vpc-1", "vpc-1", "vpc-2"),
            self.some(("203.0.113.0/24", "2001:DB8::/32", "198.51.100.7/24", "pl-0123", "nowhere"), 3),
        )

    def record_case(self) -> Any:
        key = self.one("ssh", "ssh", "team:ssh")
        stack = {
            "stack": STACK,
            "tag_key": key,
            "sync_seconds": self.one(300, 300, 60, 2),
            "bastion": self.bastion_host(),
            "keys_path": "/keys",
        }
        return {
            "record": self.record(),
            "now": NOW + self.one(0, 0, 0, 1, 60, 900, 100_000),
            "stack": stack,
            "token": self.maybe(0.7, lambda: ("v1", "secret-token")),
            "held_version": self.one(None, "v1", "v0"),
            "keys": (("mario", (HOST_KEY,)),) if self.often(0.3) else (),
            "problem": self.maybe(0.15, self.problem),
        }

    # ---- scripts -------------------------------------------------------------------------------

    def block(self, stack: str = STACK) -> dict[str, Any]:
        return {"stack": stack, "version": self.one("1.0.0", "1.1.0"), "id": self.one("0123456789ab", "ba9876543210")}

    def made(self, told: Mapping[str, Any]) -> Block:
        return Block(told["stack"], told["version"], told["id"], b"echo the block\n")

    def owners(self) -> bytes | None:
        first = self.one(
            b"#!/bin/bash\n", b"#!/bin/sh\n", b"#!/usr/bin/env bash\n", b"", b"#!/bin/bash", b"#!/bin/bash\r\n",
            b"#!/usr/bin/python3\n", b"#!/usr/bin/env -S bash -e\n", b"#!\n", b"\xef\xbb\xbf#!/bin/sh\n",
            b"#!/usr/bin/env -u X perl\n", b"#! /bin/busybox sh\n", b"#!/bin/zsh -f\n",
        )  # fmt: skip
        lines = self.some(
            (
                b"set -e\n", b"exit 0\n", b"cat <<EOF\n", b"EOF\n", b"echo 'open\n", b'echo "x"\n', b"# it's\n",
                b"reboot", b"\n", b"x \\\n", b"\xff\xfe\n", b"# >>> notebook-ssh stack=team-ssh\n",
                b"# <<< notebook-ssh stack=team-ssh <<<\n", b"# >>> notebook-ssh stack=team-ssh-2 x\n", b"a" * 4_000,
            ),
            4,
        )  # fmt: skip
        drawn: bytes | None = self.one(None, b"", EMPTY_SCRIPT, *[first + b"".join(lines)] * 7)
        return drawn

    def edited(self, script: bytes) -> bytes:
        """The script after somebody edited it."""
        lines = script.splitlines(keepends=True)
        for _ in range(self.one(1, 1, 2)):
            at = self.chance.randrange(len(lines) + 1)
            match self.one("insert", "delete", "move", "change", "repeat"):
                case "insert":
                    lines.insert(
                        at, self.one(b"echo more\n", b"cat <<X\n", b"'\n", b"# >>> notebook-ssh stack=team-ssh >>>\n")
                    )
                case "delete" if lines:
                    lines.pop(at % len(lines))
                case "move" if lines:
                    lines.insert(at % len(lines), lines.pop())
                case "change" if lines:
                    lines[at % len(lines)] = lines[at % len(lines)].replace(b"e", b"3")
                case "repeat":
                    lines = lines + lines
        return b"".join(lines)

    def script(self) -> bytes | None:
        text = self.owners()
        for stack in self.chance.sample((STACK, "b", "team-ssh-2"), self.one(0, 1, 1, 1, 2, 3)):
            made = insert_block(text, self.made(self.block(stack)))
            if isinstance(made, Inserted):
                text = made.script
        if text and self.often(0.25):
            text = self.edited(text)
        if text and self.often(0.03):
            text += b"x" * self.one(12_288 - len(text), 12_100 - min(len(text), 12_100), 12_289)
        return text

    def script_case(self) -> Any:
        return {"script": self.script(), "block": self.block()}

    # ---- plans ---------------------------------------------------------------------------------

    def policy(self) -> dict[str, Any]:
        return {"tag_key": self.one("ssh", "ssh", "team:ssh"), "fallback": "better-sagemaker", "block": self.block()}

    def lifecycle_config(self, name: str) -> observed.LifecycleConfig:
        on_create = self.one(None, EMPTY_SCRIPT, EMPTY_SCRIPT, b"#!/bin/sh\necho made\n")
        on_start = (
            self.script()
            if self.often(0.6)
            else self.with_block(self.one(EMPTY_SCRIPT, b"#!/bin/bash\nset -e\n", None))
        )
        modified = self.time() * 1000 + self.one(0, 0, 123)
        return observed.LifecycleConfig(name, f"arn:config/{name}", modified, on_create, on_start)

    def with_block(self, text: bytes | None) -> bytes | None:
        made = insert_block(text, self.made(self.block()))
        return made.script if isinstance(made, Inserted) and self.often(0.8) else text

    def config_record(self, name: str, modified: int | None = None) -> observed.LifecycleConfigRecord:
        mark = self.one("1.0.0:0123456789ab", "1.1.0:ba9876543210", "")
        return observed.LifecycleConfigRecord(
            name,
            self.one(modified or 0, self.time() * 1000),
            mark,
            self.one(mark, "1.0.0:0123456789ab"),
            self.maybe(0.7, self.time),
            self.maybe(0.1, self.problem),
        )

    def users(self, names: Sequence[str] = NAMES) -> observed.Users:
        listed = self.some(names, 3)
        return observed.Users(
            listed, self.some(listed, 1), self.some(listed, 1) if self.often(0.2) else (), self.often(0.8)
        )

    def notebook_case(self) -> Any:
        record = self.record()
        if self.often(0.1):  # what we attached is to go, which rarely comes about by chance
            record = replace(
                record, state=NotebookState.STOPPED, attached_config="better-sagemaker", spec=NotebookSpec()
            )
            record = replace(record, lifecycle_config="better-sagemaker", restart=None)
        name = record.name
        attached_config = (
            record.lifecycle_config if self.often(0.8) else self.maybe(0.6, lambda: self.one(*CONFIGURATIONS))
        )
        state = record.state if self.often(0.6) else self.one(*NotebookState)
        found = observed.Notebook(
            name,
            record.arn,
            "demo-role",
            state,
            self.one(record.state_since, self.time()),
            attached_config,
            record.network,
        )
        lifecycle_config = self.maybe(0.85, lambda: self.lifecycle_config(attached_config or "better-sagemaker"))
        spec = record.spec if self.often(0.6) else self.spec()
        config_record = (
            self.maybe(0.65, lambda: self.config_record(lifecycle_config.name, lifecycle_config.modified))
            if lifecycle_config
            else None
        )
        policy = self.policy()
        if record.attached_config and self.often(0.5) and lifecycle_config:
            content = script.owner_hash(
                lifecycle_config, observed.BlockPolicy("ssh", "better-sagemaker", self.made(policy["block"]))
            )
            record = replace(record, attached_hash=content)
        seen = observed.NotebookObservation(
            name=name,
            notebook=found if self.often(0.96) else None,
            spec=spec,
            lifecycle_config=lifecycle_config,
            users=self.maybe(0.7, self.users),
            record=record if self.often(0.85) else None,
            config_record=config_record,
        )
        return {"seen": seen, "terms": policy, "now": NOW + self.one(0, 0, 0, 1, 60, 900, 2_000)}

    def configuration_case(self) -> Any:
        name = self.one(*CONFIGURATIONS)
        lifecycle_config = self.maybe(0.93, lambda: self.lifecycle_config(name))
        seen = observed.LifecycleConfigObservation(
            name,
            lifecycle_config,
            self.maybe(0.85, lambda: self.one(observed.Users(), self.users(), self.users())),
            self.one(None, True, True, False),
            self.maybe(0.65, lambda: self.config_record(name, lifecycle_config.modified if lifecycle_config else None)),
        )
        changed = (lifecycle_config.modified if lifecycle_config else 0) + self.one(-1, 0, 1, 1_000, 123)
        return {"seen": seen, "terms": self.policy(), "now": NOW, "changed": changed}

    # ---- the bastion ---------------------------------------------------------------------------

    def rule(self) -> Any:
        direction = self.one(*network.Direction)
        return network.Rule(
            self.one(*GROUPS),
            direction,
            self.one("sg-0bastion", "sg-0bastion", *GROUPS, "203.0.113.0/24", "0.0.0.0/0", "2001:db8::/32"),
            *self.one((), (), (), ("-1", -1, -1), ("tcp", 20, 23), ("udp", 22, 22)),
        )

    def bastion_case(self) -> Any:
        count = self.one(0, 1, 2, 3, 5)
        records = tuple(self.record(name) for name in self.chance.sample(NAMES, count))
        records = tuple(
            replace(each, spec=replace(each.spec, modes=(Mode.BASTION,)))
            if self.often(0.6) and not each.spec.problem
            else each
            for each in records
        )
        vpcs = {group: self.one("vpc-1", "vpc-1", "vpc-1", "vpc-2") for group in GROUPS if group != "sg-0gone"}
        addresses = {f"eni-{name.lower()}": f"10.0.1.{number}" for number, name in enumerate(NAMES) if self.often(0.8)}
        rules = tuple(
            network.FoundRule(f"sgr-{number}", self.rule(), self.one(None, None, STACK, STACK, "b"))
            for number in range(self.one(0, 2, 6, 12))
        )
        return {
            "fleet": records,
            "bastion": self.bastion_host(),
            "around": network.NetworkState(vpcs, addresses, rules),
            "stack": STACK,
            "now": NOW,
            "complete": self.often(0.7),
            "refused": self.some((0, 1, 2), 2) if self.often(0.3) else (),
            "refusal": Problem("rule-refused", "EC2 would not make it."),
            "sent": self.some(tuple((NOW - seconds) * 1000 for seconds in (4, 5, 6, 60, 0)), 2),
            "observed_from": self.one(None, NOW, NOW - 1),
        }

    # ---- what comes in -------------------------------------------------------------------------

    def report_case(self) -> Any:
        record = self.record()
        body: dict[str, Any] = {
            "agent": self.one("1.0", "x" * 50, "\x1b[2J"),
            "boot": self.one("boot-1", "boot-2", "", "a b"),
            "booted_at": self.one(NOW - 550, NOW + 301, self.time(), -1, True),
            "sequence": self.one(1, 3, 6, 0, 2**53 + 1, "5"),
            "mode": self.one("ngrok", "ngrok", "bastion", "off", "tailnet", 5),
            "phase": self.one("connected", "connected", "connecting", "failed", "off", "???"),
            "host": self.one(
                "0.tcp.ngrok.io", "0.tcp.ngrok.io", "3.TCP.eu.ngrok.io", "127.0.0.1", "10.0.0.1", "8.8.8.8", "a", None,
                "x.local", "1.2.3", "0x7f.1", "a;b.c", "h.0x7f", 5, "a" * 254,
            ),
            "port": self.one(17887, 17887, 0, 65_536, None, "22"),
            "host_keys": self.one(
                [HOST_KEY], [HOST_KEY, HOST_KEY, RSA_KEY], [], ["ssh-dss x"], [5], "x", [HOST_KEY] * 9, None, [f"{HOST_KEY} c"]
            ),
            "keys": self.one(
                {"own": 1, "central": 0, "rejected": []}, {"own": -1}, [], None,
                {"own": 2, "central": 1, "rejected": [{"line": 3, "reason": "no\nkey" + "x" * 200}]},
                {"rejected": [{"line": 0}]}, {"rejected": [5]},
            ),
            "sessions": self.one({"open": 0, "active_at": None}, {"open": 1, "active_at": NOW}, {"open": "x"}, None),
            "problem": self.one(
                None, None, {"code": "agent-failed", "message": "it\x00 broke"}, {"code": "Bad Code"}, {"code": "a-" * 30 + "a"},
                {"code": "ngrok-token-invalid", "message": "x" * 600}, "x", {"code": "y", "message": 5},
            ),
            "token_version": self.one(None, "v1", 5),
            "wants_worker": self.one(True, False, "yes"),
        }  # fmt: skip
        usual = {
            "boot": "boot-1", "booted_at": NOW - 550, "sequence": 6, "mode": "ngrok", "phase": "connected",
            "host": "0.tcp.ngrok.io", "port": 17887, "host_keys": [HOST_KEY], "keys": {"own": 1}, "sessions": {},
            "problem": None, "agent": "1.0", "token_version": None,
        }  # fmt: skip
        odd = self.some(tuple(body), 2)
        told = {name: body[name] if name in odd else usual.get(name, body[name]) for name in body if self.often(0.97)}
        text = json.dumps(told).encode()
        text = self.one(*[text] * 20, b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b"[" * 5_000, b" " * 17_000)
        arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/demo-role/SageMaker"
        return {
            "body": text,
            "now": NOW,
            "allow_loopback": self.often(0.3),
            "record": record if self.often(0.9) else None,
            "caller": self.one(
                *[arn] * 6, arn.replace(ACCOUNT, "210987654321"), "arn:aws:iam::1:user/x", "", f"{arn}/more"
            ),
            "account": ACCOUNT,
        }

    def keys_case(self) -> Any:
        key = self.one(
            HOST_KEY, RSA_KEY, HOST_KEY[:-6], RSA_KEY.replace("ssh-rsa", "ssh-ed25519", 1), "ssh-dss AAAA", "x y"
        )
        options = self.one(
            "", "", "", "restrict ", 'from="10.0.0.0/8",no-pty ', "cert-authority ", 'command="echo \\"a b\\"" ', 'environment="A=b" ',
            "restrict,PTY ", 'tunnel="0" ', "agent-forwarding=yes ", "no-touch-required ",
        )  # fmt: skip
        comment = self.one("", " mario@laptop", " \x1b[2J", "\tx  y ")
        lines = [f"{options}{key}{comment}"]
        if self.often(0.3):
            lines += self.some(
                ("# a comment", "", "  ", "-----BEGIN OPENSSH " + "PRIVATE KEY-----", HOST_KEY, "a" * 9_000), 3
            )
        return {"line": "\n".join(lines), "users": self.one((), ("mario",), ("mario", "ana"))}

    def event_case(self) -> Any:
        files = sorted((Path(__file__).parents[2] / "events").glob("*.json"))
        event: Any = json.loads(self.one(*files).read_text())
        if self.often(0.25):
            name = self.one(*NAMES, "a/b", "x" * 64, 5)
            event = {
                "look_at": self.one({"notebook": name}, {"configuration": name}, "fleet", {}, None, [name]),
                "because": self.one("why", "x" * 200, "\x1b[1m", 5),
                "at": self.one(0, NOW + 60, NOW - 5, "soon"),
            }
        for _ in range(self.one(0, 0, 1, 2)):
            self.spoil(event)
        key = self.one("ssh", "ssh", "team:ssh", "Env")
        return {
            "event": json.dumps(event),
            "tag_key": key,
            "caller": self.one("", "SageMaker", "notebook-ssh-ReconcileNotebook"),
            "now": NOW,
        }

    def spoil(self, event: Any) -> None:
        """Take away or replace one member somewhere in the event."""
        while isinstance(event, dict) and event:
            name = self.one(*event)
            if not isinstance(event[name], dict) or self.often(0.5):
                if self.often(0.5):
                    del event[name]
                else:
                    event[name] = self.one(
                        None, 5, [], {}, "x", "Tag Change on Resource", ["arn:aws:s3:::b"], "Scheduled Event"
                    )
                return
            event = event[name]

    # ---- the fleet -----------------------------------------------------------------------------

    def fleet_case(self) -> Any:
        key = "ssh"
        names = self.chance.sample(NAMES, self.one(1, 2, 3, 5))
        records = [self.record(name) for name in names]
        lines = tuple(
            observed.NotebookSummary(
                each.name,
                each.arn,
                each.state if self.often(0.8) else self.one(*NotebookState),
                self.one(each.state_since, self.time()),
                each.lifecycle_config if self.often(0.8) else None,
            )
            for each in records
            if self.often(0.9)
        )
        told = {each.arn.lower(): self.tag_set(key) for each in records if self.often(0.85)}
        lifecycle_configs = tuple(
            observed.LifecycleConfigSummary(name, f"arn:config/{name}", self.time() * 1000)
            for name in self.some(CONFIGURATIONS)
        )
        modified = {line.name: line.modified for line in lifecycle_configs}
        config_record = tuple(self.config_record(name, modified.get(name)) for name in self.some(CONFIGURATIONS))
        known = tuple(each for each in records if self.often(0.85))
        return {
            "fleet": drift.Fleet(lines, lifecycle_configs, told, known, config_record),
            "current": self.some(names),
            "tag_key": key,
            "mark": self.one("1.0.0:0123456789ab", "1.1.0:ba9876543210"),
            "now": NOW + self.one(0, 0, 900),
            "dry_run": self.often(0.2),
            "status_tags": self.often(0.7),
            "sync_seconds": self.one(300, 300, 60),
        }


KINDS: dict[str, Callable[[Draw], Any]] = {
    "tags": Draw.tags,
    "record": Draw.record_case,
    "notebook": Draw.notebook_case,
    "configuration": Draw.configuration_case,
    "bastion": Draw.bastion_case,
    "script": Draw.script_case,
    "report": Draw.report_case,
    "keys": Draw.keys_case,
    "event": Draw.event_case,
    "fleet": Draw.fleet_case,
}


def drawn(kind: str, number: int) -> dict[str, Any]:
    """One case as it is stored."""
    given = encode(KINDS[kind](Draw(f"{kind} {number}")))
    return {"kind": kind, "given": given, "expected": encode(SUBJECTS[kind](decode(given)))}


def main() -> None:
    """Draw all of them and write the file."""
    count = 0
    with lzma.open(CASES, "wt", encoding="utf-8", preset=9 | lzma.PRESET_EXTREME) as out:
        for kind, many in MANY.items():
            for number in range(many):
                out.write(json.dumps(drawn(kind, number), sort_keys=True, separators=(",", ":")) + "\n")
                count += 1
    sys.stdout.write(f"{count:,} cases, {CASES.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
