"""What is asked of the code for each kind of case: one function a kind, from the drawn input to everything that matters.

The input arrives decoded, with lists as tuples. The output must be what `codec.encode` takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from notebook_ssh.errors import BadReport
from notebook_ssh.rules import answers, bastion, doctor, fleet, keys, notebook, report, script, signals, status, tags
from notebook_ssh.rules.record import Bastion, Record

BODY = b"echo the block\n"


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack's settings, as the API's answers need them."""

    stack: str
    tag_key: str
    sync_seconds: int
    bastion: Bastion | None
    keys_path: str


def stack_of(told: Mapping[str, Any]) -> Stack:
    return Stack(told["stack"], told["tag_key"], told["sync_seconds"], told["bastion"], told["keys_path"])


def block_of(told: Mapping[str, Any]) -> script.Block:
    return script.Block(told["stack"], told["version"], told["id"], told.get("body", BODY))


def terms_of(told: Mapping[str, Any]) -> notebook.Terms:
    return notebook.Terms(told["tag_key"], told["fallback"], block_of(told["block"]))


def of_tags(given: Mapping[str, Any]) -> Any:
    """What the tags ask for."""
    wish = tags.read_wish(given["tags"], given["tag_key"])
    return {"wish": wish, "mode": wish.mode_at(given["now"]), "holds": notebook.holds(wish, given["now"])}


def of_record(given: Mapping[str, Any]) -> Any:
    """Everything that is said of one notebook: to people, to programs, to its agent, in its tags."""
    record, now, stack = given["record"], given["now"], stack_of(given["stack"])
    sync, key = stack.sync_seconds, stack.tag_key
    state = status.status_of(record, now, sync, key)
    connection = answers.connection_of(record, now, stack)
    diagnosis = doctor.examine(record, now, stack)
    told = {
        "status": state,
        "headline": status.headline(state),
        "address": status.address_of(record, now, sync),
        "last_address": status.last_address(record),
        "wake": status.wake(record, now),
        "doctor": doctor.doctor_text(diagnosis),
        "hops": [(hop.name, str(hop.verdict), hop.since) for hop in diagnosis.hops],
        "details": answers.details(record, now, stack),
        "list_entry": answers.list_entry(record, now, stack),
        "tags": notebook.tags_to_show(record, now, sync, key),
        "news": notebook.news(record, now, sync, key) is not None,
        "settled": notebook.settled_off(record),
        "admitted": (
            bastion.concerns_bastion(record),
            bastion.is_wished(record, now),
            bastion.is_admitted(record, now),
        ),
        "reply": report.answer(
            record,
            now,
            sync_seconds=sync,
            bastion=stack.bastion,
            token=report.Token(*given["token"]) if given["token"] else None,
            held_version=given["held_version"],
            keys=given["keys"],
            problem=given["problem"],
        ),
    }
    if connection:
        told |= {
            "ssh": answers.ssh_command(connection),
            "address_line": answers.address_line(connection),
            "ssh_config": answers.ssh_config([connection], stack.stack),
            "known_hosts": answers.known_hosts(connection),
        }
    return told


def of_notebook(given: Mapping[str, Any]) -> Any:
    """The plan for one notebook, and for its end."""
    seen, terms, now = given["seen"], terms_of(given["terms"]), given["now"]
    plan = notebook.plan_notebook(seen, terms, now)
    return {
        "needs_users": notebook.needs_users(seen, terms, now),
        "in_place": notebook.is_in_place(seen, terms, now),
        "plan": plan,
        "reasons": notebook.reasons(plan.actions),
        "is_news": None if plan.record is None else notebook.is_news(seen.record, plan.record),
        "last": notebook.plan_last_attachment(seen, terms),
    }


def of_configuration(given: Mapping[str, Any]) -> Any:
    """The plan for one lifecycle configuration, and for its end."""
    seen, terms, now = given["seen"], terms_of(given["terms"]), given["now"]
    plan = notebook.plan_configuration(seen, terms, now)
    return {
        "plan": plan,
        "reasons": notebook.reasons(plan.actions),
        "last": notebook.plan_last_script(seen, terms),
        "is_seen": notebook.is_seen(given["changed"], seen.kept),
    }


def of_bastion(given: Mapping[str, Any]) -> Any:
    """The rules of a fleet, what changes for them, and what the records then say."""
    records, host, around = given["fleet"], given["bastion"], given["around"]
    stack, now = given["stack"], given["now"]
    desired = bastion.desired_rules(records, host, around, stack, now)
    plan = bastion.plan(desired, around.rules, stack, complete=given["complete"])
    made = [grant.rule for number, grant in enumerate(plan.grants) if number not in given["refused"]]
    refused = {grant.rule: given["refusal"] for number, grant in enumerate(plan.grants) if number in given["refused"]}
    outcome = bastion.Outcome(frozenset((*plan.satisfied, *made)), refused)
    return {
        "look": bastion.where_to_look(records, host, now),
        "desired": desired,
        "plan": plan,
        "ways": bastion.changed_ways(records, desired, outcome, around, now),
        "already_seen": bastion.already_seen(given["sent"], given["observed_from"]),
    }


def of_script(given: Mapping[str, Any]) -> Any:
    """A script with the block, without it, and what is found in it."""
    block = block_of(given["block"])
    spliced = script.splice(given["script"], block)
    return {
        "found": script.inspect(given["script"], block.stack),
        "stripped": script.strip(given["script"], block.stack),
        "spliced": spliced,
        "back": script.strip(spliced.script, block.stack) if isinstance(spliced, script.Spliced) else None,
    }


def of_report(given: Mapping[str, Any]) -> Any:
    """A report as read, and what becomes of it."""
    role = report.role_of_caller(given["caller"], given["account"])
    try:
        told = report.read_report(given["body"], given["now"], allow_loopback=given["allow_loopback"])
    except BadReport as bad:
        return {"role": role, "refused": (type(bad).__name__, bad.field, str(bad))}
    return {"role": role, "told": told, "verdict": report.weigh(given["record"], role or "", told.report)}


def of_keys(given: Mapping[str, Any]) -> Any:
    """A line as each kind of key, and as a parameter of central keys."""

    def attempt(read: Callable[[str], Any]) -> Any:
        try:
            return read(given["line"])
        except keys.NotAKey as reason:
            return f"refused: {reason}"

    users = given["users"]
    return {
        "host_key": attempt(keys.host_key),
        "public_key": attempt(keys.public_key),
        "central_key": attempt(keys.central_key),
        "admitted": keys.admitted(users, dict.fromkeys(users[:1], given["line"]), "/keys"),
    }


def of_event(given: Mapping[str, Any]) -> Any:
    """What an event asks to be reconciled, and the message that asks for the same."""
    read = signals.read_signals(json.loads(given["event"]), tag_key=given["tag_key"], caller=given["caller"])
    asked = [each for each in read if isinstance(each, signals.LookAtNotebook | signals.LookAtConfiguration)]
    return {"signals": read, "messages": [signals.to_message(each, given["now"], "id-1") for each in asked]}


def of_fleet(given: Mapping[str, Any]) -> Any:
    """Who needs attention."""
    lines: fleet.Fleet = given["fleet"]
    options = {"dry_run": given["dry_run"]}
    prints = {
        line.name: fleet.fingerprint(line, _tags(lines, line), given["tag_key"], **options) for line in lines.notebooks
    }
    current = given["current"]
    records = tuple(_with_print(each, prints) if each.name in current else each for each in lines.records)
    return {
        "attention": fleet.who_needs_attention(
            replace(lines, records=records),
            given["tag_key"],
            given["mark"],
            given["now"],
            status_tags=given["status_tags"],
            sync_seconds=given["sync_seconds"],
            **options,
        ),
        "prints": prints,
    }


def _tags(lines: fleet.Fleet, line: fleet.NotebookLine) -> Mapping[str, str]:
    return lines.tags.get(line.arn.lower(), {})


def _with_print(record: Record, prints: Mapping[str, str]) -> Record:
    return replace(record, seen=prints.get(record.name, ""))


SUBJECTS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "tags": of_tags,
    "record": of_record,
    "notebook": of_notebook,
    "configuration": of_configuration,
    "bastion": of_bastion,
    "script": of_script,
    "report": of_report,
    "keys": of_keys,
    "event": of_event,
    "fleet": of_fleet,
}
"""By the kind that a case names."""


def unused(kinds: Iterable[str]) -> set[str]:
    """Kinds of cases that nothing here answers, and the other way round."""
    return set(kinds) ^ set(SUBJECTS)
