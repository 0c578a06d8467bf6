"""What is asked of the code for each kind of case: one function a kind, from the drawn input to everything that matters.

The input arrives decoded, with lists as tuples. The output must be what `codec.encode` takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from golden.codec import encode_single, new_keys, old_class, old_keys

from notebook_ssh.errors import InvalidReportError
from notebook_ssh.http_api import diagnosis, views
from notebook_ssh.model import assessment, caller, checks, managed_block, spec, ssh_keys, status, wake
from notebook_ssh.model.record import Record
from notebook_ssh.model.spec import Mode
from notebook_ssh.model.stack import Bastion, EndpointSettings
from notebook_ssh.planning import (
    actions,
    drift,
    entrances,
    facts,
    lifecycle_config,
    notebook,
    observation,
    routes,
    rules,
    script,
    status_tags,
    teardown,
)
from notebook_ssh.reports import accept, parse, reply, tokens
from notebook_ssh.triggers import events, requests

BODY = b"echo the block\n"


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack's settings, as the API's answers need them."""

    stack: str
    tag_key: str
    sync_seconds: int
    bastion: Bastion | None
    keys_path: str
    certificates: bool = False
    endpoint: EndpointSettings | None = None
    region: str = "eu-west-1"


def stack_of(told: Mapping[str, Any]) -> Stack:
    return Stack(told["stack"], told["tag_key"], told["sync_seconds"], told["bastion"], told["keys_path"])


def block_of(told: Mapping[str, Any]) -> managed_block.Block:
    return managed_block.Block(told["stack"], told["version"], told["id"], told.get("body", BODY))


def policy_of(told: Mapping[str, Any]) -> observation.BlockPolicy:
    return observation.BlockPolicy(told["tag_key"], told["fallback"], block_of(told["block"]))


def of_tags(given: Mapping[str, Any]) -> Any:
    """What the tags ask for."""
    asked = spec.parse_spec(given["tags"], given["tag_key"])
    return {
        "wish": asked,
        "mode": encode_single("record.Mode", asked.effective_modes(given["now"])),
        "holds": asked.needs_block(given["now"]),
    }


def of_record(given: Mapping[str, Any]) -> Any:
    """Everything that is said of one notebook: to people, to programs, to its agent, in its tags."""
    record, now, stack = given["record"], given["now"], stack_of(given["stack"])
    sync, key = stack.sync_seconds, stack.tag_key
    state = status.status_of(record, now, sync, key)
    connection = views.connection_for(record, now, stack)
    found = checks.run_checks(record, now, stack)
    told = {
        "status": state,
        "headline": status.status_key(state),
        "address": assessment.address_of(record, now, sync),
        "last_address": assessment.assess(record, now, sync).address,
        "wake": wake.wake(record, now),
        "doctor": diagnosis.doctor_text(found),
        "hops": [(check.name, str(check.state), check.since) for check in found.checks],
        "details": one_mode(old_keys("details", views.details(record, now, stack))),
        "list_entry": one_mode(views.list_entry(record, now, stack)),
        "tags": status_tags.desired_status_tags(record, now, sync, key),
        "news": status_tags.status_change(record, now, sync, key) is not None,
        "settled": facts.is_inactive(record),
        "admitted": (
            entrances.uses_entrance(record),
            entrances.wants_route(record, Mode.BASTION, now),
            entrances.route_is_desired(record, Mode.BASTION, now),
        ),
        "reply": one_mode(
            reply.reply(
                record,
                now,
                sync_seconds=sync,
                bastion=stack.bastion,
                token=tokens.Token(*given["token"]) if given["token"] else None,
                held_version=given["held_version"],
                keys=given["keys"],
                problem=given["problem"],
            )
        ),
    }
    if connection:
        told |= {
            "ssh": views.ssh_command(connection),
            "address_line": views.address_line(connection),
            "ssh_config": views.ssh_config([connection], stack.stack),
            "known_hosts": views.known_hosts(connection),
        }
    return told


NEW = ("modes", "jump_host_keys", "last_used", "endpoint", "paths")
"""Members that the old answers did not have."""


def one_mode(reported: Mapping[str, Any]) -> Any:
    """JSON with its modes as the one word that the old answers had, without what is new."""
    old = {key: value for key, value in reported.items() if key not in NEW}
    return old | {"mode": " ".join(reported["modes"]) or "off"}


def of_notebook(given: Mapping[str, Any]) -> Any:
    """The plan for one notebook, and for its end."""
    observed, policy, now = given["seen"], policy_of(given["terms"]), given["now"]
    plan = notebook.plan_notebook(observed, policy, now)
    return {
        "needs_users": script.needs_users(observed, policy, now),
        "in_place": script.is_in_place(observed, policy, now),
        "plan": plan,
        "reasons": actions.reasons(plan.actions),
        "is_news": None if plan.record is None else facts.has_changed(observed.record, plan.record),
        "last": teardown.plan_attachment_teardown(observed, policy),
    }


def of_configuration(given: Mapping[str, Any]) -> Any:
    """The plan for one lifecycle configuration, and for its end."""
    observed, policy, now = given["seen"], policy_of(given["terms"]), given["now"]
    plan = lifecycle_config.plan_lifecycle_config(observed, policy, now)
    return {
        "plan": plan,
        "reasons": actions.reasons(plan.actions),
        "last": teardown.plan_script_teardown(observed, policy),
        "is_seen": lifecycle_config.includes_change(given["changed"], observed.config_record),
    }


def of_bastion(given: Mapping[str, Any]) -> Any:
    """The rules of a fleet, what changes for them, and what the records then say."""
    records, through, network = given["fleet"], entrances.bastion_entrance(given["bastion"]), given["around"]
    stack, now = given["stack"], given["now"]
    desired = rules.desired_rules(records, through, network, stack, now)
    plan = rules.plan_rules([desired], network.rules, stack, complete=given["complete"])
    made = [grant.rule for number, grant in enumerate(plan.authorizations) if number not in given["refused"]]
    refused = {
        grant.rule: given["refusal"] for number, grant in enumerate(plan.authorizations) if number in given["refused"]
    }
    outcome = rules.Outcome(frozenset((*plan.satisfied, *made)), refused)
    return {
        "look": routes.resources_to_read(records, [through], now),
        "desired": desired,
        "plan": plan,
        "ways": routes.changed_routes(records, through, desired, outcome, network, now),
        "already_seen": routes.covered_by_last_sync(given["sent"], given["observed_from"], given["observed_from"] or 0),
    }


def of_script(given: Mapping[str, Any]) -> Any:
    """A script with the block, without it, and what is found in it."""
    block = block_of(given["block"])
    inserted = managed_block.insert_block(given["script"], block)
    return {
        "found": managed_block.inspect(given["script"], block.stack),
        "stripped": managed_block.remove_block(given["script"], block.stack),
        "spliced": inserted,
        "back": managed_block.remove_block(inserted.script, block.stack)
        if isinstance(inserted, managed_block.Inserted)
        else None,
    }


def of_report(given: Mapping[str, Any]) -> Any:
    """A report as read, and what becomes of it."""
    role = caller.role_of_caller(given["caller"], given["account"])
    try:
        told = parse.read_report(given["body"], given["now"], allow_loopback=given["allow_loopback"])
    except InvalidReportError as bad:
        return {"role": role, "refused": (old_class(type(bad)), bad.field, str(bad))}
    return {"role": role, "told": told, "verdict": accept.accept(given["record"], role or "", told.report)}


def of_keys(given: Mapping[str, Any]) -> Any:
    """A line as each kind of key, and as a parameter of central keys."""

    def attempt(read: Callable[[str], Any]) -> Any:
        try:
            return read(given["line"])
        except ssh_keys.InvalidKeyError as reason:
            return f"refused: {reason}"

    users = given["users"]
    return {
        "host_key": attempt(ssh_keys.host_key),
        "public_key": attempt(ssh_keys.public_key),
        "central_key": attempt(ssh_keys.central_key),
        "admitted": ssh_keys.admitted(users, dict.fromkeys(users[:1], given["line"]), "/keys", "demo"),
    }


def of_event(given: Mapping[str, Any]) -> Any:
    """What an event asks to be reconciled, and the message that asks for the same."""
    event = json.loads(given["event"])
    if isinstance(event, dict) and "look_at" in event:
        event = new_keys("message", event)
    read = events.parse_event(event, tag_key=given["tag_key"], caller=given["caller"])
    asked = [each for each in read if isinstance(each, requests.ReconcileRequest)]
    return {
        "signals": read,
        "messages": [old_message(*requests.to_message(each, given["now"], "id-1")) for each in asked],
    }


def old_message(message: Mapping[str, Any], delay: int) -> Any:
    """A message by its old keys, with its delay."""
    return old_keys("message", message), delay


def of_fleet(given: Mapping[str, Any]) -> Any:
    """Who needs attention."""
    lines: drift.Fleet = given["fleet"]
    options = {"dry_run": given["dry_run"]}
    prints = {
        line.name: facts.hash_of_lists(line, _tags(lines, line), given["tag_key"], **options)
        for line in lines.notebooks
    }
    current = given["current"]
    # In the old records the time of the last writing said as well that tags may be left.
    known = (replace(each, status_tags_left=bool(each.status_tags_at)) for each in lines.records)
    records = tuple(_with_print(each, prints) if each.name in current else each for each in known)
    return {
        "attention": drift.find_drift(
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


def _tags(lines: drift.Fleet, line: observation.NotebookSummary) -> Mapping[str, str]:
    return lines.tags.get(line.arn.lower(), {})


def _with_print(record: Record, prints: Mapping[str, str]) -> Record:
    return replace(record, observed_hash=prints.get(record.name, ""))


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
