"""Each EventBridge rule takes the events that concern it, and leaves all others alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from moto.events.models import EventPattern
from support.stack import WITH_BASTION, Stack

EVENTS = Path(__file__).resolve().parent.parent.parent / "events"

TAKEN_BY = {
    "notebook-in-service": "NotebookStateRule",
    "notebook-stopped": "NotebookStateRule",
    "notebook-failed": "NotebookStateRule",
    "notebook-untagged": "NotebookStateRule",
    "configuration-changed": "ConfigStateRule",
    "tag-set": "TagRule",
    "tag-removed": "TagRule",
    "tag-status-written": None,
    "tag-of-others": None,
    "tag-on-endpoint": None,
    "call-add-tags": "CloudTrailRule",
    "call-add-tags-by-user": "CloudTrailRule",
    "call-delete-tags": "CloudTrailRule",
    "call-create-notebook-instance": "CloudTrailRule",
    "call-update-notebook-instance": "CloudTrailRule",
    "call-delete-notebook-instance": "CloudTrailRule",
    "call-update-configuration": "CloudTrailRule",
    "call-tag-resources": "CloudTrailRule",
    "call-untag-resources": "CloudTrailRule",
    "call-add-tags-to-endpoint": None,
    "call-of-our-own": None,
    "schedule": None,
}
"""Which rule takes each file of events/; None: no rule does. The schedule calls its function without a rule."""

RULES = ["NotebookStateRule", "ConfigStateRule", "TagRule", "CloudTrailRule"]


def event(name: str) -> dict[str, Any]:
    return dict(json.loads((EVENTS / f"{name}.json").read_text("utf-8")))


def takers(stack: Stack, status_change: dict[str, Any]) -> list[str]:
    rules = stack.of_type("AWS::Events::Rule")
    return [
        name
        for name in RULES
        if EventPattern(None, rules[name]["EventPattern"]).matches_event(status_change)  # type: ignore[arg-type]
    ]


def test_every_stored_event_is_judged_here() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == set(TAKEN_BY)


@pytest.mark.parametrize("name", sorted(TAKEN_BY))
def test_an_event_is_taken_by_its_rule_alone(name: str) -> None:
    expected = TAKEN_BY[name]
    assert takers(Stack(), event(name)) == ([expected] if expected else [])


def test_the_other_spelling_of_cloudtrail_is_taken_too() -> None:
    status_change = event("call-add-tags")
    parameters = status_change["detail"]["requestParameters"]
    status_change["detail"]["requestParameters"] = {
        "ResourceArn": parameters["resourceArn"],
        "Tags": parameters["tags"],
    }
    assert takers(Stack(), status_change) == ["CloudTrailRule"]
    status_change = event("call-tag-resources")
    parameters = status_change["detail"]["requestParameters"]
    status_change["detail"]["requestParameters"] = {"ResourceARNList": parameters["resourceARNList"]}
    assert takers(Stack(), status_change) == ["CloudTrailRule"]


def test_another_tag_key_listens_to_that_key_alone() -> None:
    stack, status_change = Stack(TagKey="remote"), event("tag-set")
    assert takers(stack, status_change) == []
    status_change["detail"]["changed-tag-keys"] = ["remote-users"]
    assert takers(stack, status_change) == ["TagRule"]


def test_the_tag_keys_are_all_that_people_write_and_none_that_we_write() -> None:
    from notebook_ssh.model.spec import spec_tag_keys, status_keys

    detail = Stack().of_type("AWS::Events::Rule")["TagRule"]["EventPattern"]["detail"]
    assert set(detail["changed-tag-keys"]) == set(spec_tag_keys("ssh"))
    assert not set(detail["changed-tag-keys"]) & set(status_keys("ssh"))


@pytest.mark.parametrize("rule", RULES)
def test_every_target_has_somewhere_for_what_it_cannot_deliver(rule: str) -> None:
    stack = Stack(**WITH_BASTION)
    targets = stack.of_type("AWS::Events::Rule")[rule]["Targets"]
    assert all(target["DeadLetterConfig"] == {"Arn": stack.arn("EventDeadLetterQueue")} for target in targets)
    (policy,) = stack.of_type("AWS::SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert stack.arn(rule) in statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    assert {target["Arn"] for target in targets} | {stack.arn("EventDeadLetterQueue")} <= set(statement["Resource"])


def test_the_bastion_hears_of_a_change_from_the_notebooks_reconciler_alone_once_it_is_recorded() -> None:
    """Earlier it would only see the fleet as it was."""
    stack = Stack(**WITH_BASTION)
    bastion = stack.arn("RuleQueue")
    rules = stack.of_type("AWS::Events::Rule").values()
    assert not [target for rule in rules for target in rule["Targets"] if target["Arn"] == bastion]
    (policy,) = stack.of_type("AWS::SQS::QueuePolicy").values()
    assert bastion not in json.dumps(policy)
