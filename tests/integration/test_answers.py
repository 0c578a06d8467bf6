"""Every fact that is not confirmed can be played either way, and plain calls tell which answer was given.

A probe makes the calls by which one would find out, and returns the answer's name in the register.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from emulator.answers import ANSWERS
from emulator.place import ACCOUNT
from emulator.process import Emulator
from processes import wait_until

ROLE = f"arn:aws:iam::{ACCOUNT}:role/notebook"


@dataclass(frozen=True)
class Account:
    """The emulated account, and what the probes share in it."""

    emulator: Emulator
    old_page: str
    """A NextToken of the list of configurations that has expired, if tokens do."""

    def client(self, service: str) -> Any:
        return self.emulator.client(service)

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    def make_configuration(self, script: bytes = b"#!/bin/bash\n") -> str:
        name = unique("Configuration")
        self.sagemaker.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=name, OnStart=hook(script)
        )
        return name

    def make_notebook(self, configuration: str | None = None, **more: Any) -> str:
        name = unique("Notebook")
        more |= {"LifecycleConfigName": configuration} if configuration else {}
        self.sagemaker.create_notebook_instance(
            NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=ROLE, **more
        )
        return name

    def status(self, notebook: str) -> str:
        return str(self.sagemaker.describe_notebook_instance(NotebookInstanceName=notebook)["NotebookInstanceStatus"])

    def wait_for(self, notebook: str, status: str = "InService") -> None:
        wait_until(f"{notebook} is {status}", lambda: self.status(notebook) == status)


def unique(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:8]}"


def hook(script: bytes) -> list[dict[str, str]]:
    return [{"Content": base64.b64encode(script).decode()}]


def refusal(call: Callable[..., Any], **parameters: Any) -> str:
    """The code with which a call is refused, or "" when it is not."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    emulator = Emulator()
    try:
        emulator.start()
        made = Account(emulator, "")
        for _ in range(2):
            made.make_configuration()
        page = made.sagemaker.list_notebook_instance_lifecycle_configs(MaxResults=1)["NextToken"]
        yield Account(emulator, page)
    finally:
        emulator.close()


# ---- SageMaker's API -------------------------------------------------------------------------------


def name_case(account: Account) -> str:
    name = account.make_notebook()
    described = not refusal(account.sagemaker.describe_notebook_instance, NotebookInstanceName=name.lower())
    listed = bool(account.sagemaker.list_notebook_instances(NameContains=name.lower())["NotebookInstances"])
    return {(True, True): "ignored", (False, False): "exact"}[described, listed]


def script_limit(account: Account) -> str:
    """12,289 bytes are 16,388 characters of base64."""
    name, update = account.make_configuration(), account.sagemaker.update_notebook_instance_lifecycle_config
    refused = [
        refusal(update, NotebookInstanceLifecycleConfigName=name, OnStart=hook(b"#" * size))
        for size in (12_288, 12_289, 16_385)
    ]
    return {("", "ValidationException"): "base64", ("", ""): "bytes"}[refused[0], refused[1]] if refused[2] else ""


def empty_hook(account: Account) -> str:
    name, sagemaker = account.make_configuration(), account.sagemaker
    if refusal(
        sagemaker.update_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name, OnStart=[]
    ):
        return "refused"
    left = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    return "ignored" if left["OnStart"] else "clears"


def time_precision(account: Account) -> str:
    name, sagemaker = account.make_configuration(), account.sagemaker
    described = {"CreationTime": None}
    while not described["CreationTime"] or not described["CreationTime"].microsecond:
        name = account.make_configuration()
        described = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    (listed,) = sagemaker.list_notebook_instance_lifecycle_configs(NameContains=name)[
        "NotebookInstanceLifecycleConfigs"
    ]
    times = "CreationTime", "LastModifiedTime"
    if all(listed[each] == described[each] for each in times):
        return "milliseconds"
    return "seconds-in-lists" if all(listed[each] == described[each].replace(microsecond=0) for each in times) else ""


def delete_attached(account: Account) -> str:
    name = account.make_configuration()
    account.make_notebook(name)
    refused = refusal(
        account.sagemaker.delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name
    )
    return "refused" if refused else "deletes"


def expired_page(account: Account) -> str:
    def code() -> str:
        return refusal(account.sagemaker.list_notebook_instance_lifecycle_configs, NextToken=account.old_page)

    if account.emulator.answers()["expired-page"] != "never":
        wait_until("the token expires", lambda: code() != "")
    return {"ValidationException": "validation-exception", "": "never"}.get(code(), "other-code")


def describe_rate(account: Account) -> str:
    name, describe = account.make_notebook(), account.sagemaker.describe_notebook_instance
    codes = {refusal(describe, NotebookInstanceName=name) for _ in range(20)}
    return "throttled" if "ThrottlingException" in codes else "unthrottled"


def platform_refusal(account: Account) -> str:
    with pytest.raises(ClientError) as refused:
        account.make_notebook(PlatformIdentifier="notebook-al9-v9")
    code = refused.value.response["Error"]["Code"]
    return "validation-exception" if code == "ValidationException" else "other-code"


PROBES: dict[str, Callable[[Account], str]] = {
    "delete-attached": delete_attached,
    "describe-rate": describe_rate,
    "empty-hook": empty_hook,
    "expired-page": expired_page,
    "name-case": name_case,
    "platform-refusal": platform_refusal,
    "script-limit": script_limit,
    "time-precision": time_precision,
}
"""How one finds out which answer to a fact is given."""


@pytest.mark.parametrize(("fact", "answer"), [(fact, answer) for fact in PROBES for answer in ANSWERS[fact]])
def test_each_answer_is_what_calls_find(account: Account, fact: str, answer: str) -> None:
    with account.emulator.answering({fact: answer}):
        assert PROBES[fact](account) == answer


# ---- the register ----------------------------------------------------------------------------------


def test_answers_are_read_changed_and_shared_with_other_programs(account: Account) -> None:
    emulator = account.emulator
    assert emulator.answers() == {fact: answers[0] for fact, answers in ANSWERS.items()}
    with emulator.answering({"name-case": "ignored"}):
        assert emulator.answers()["name-case"] == "ignored"
        assert '"name-case": "ignored"' in emulator.answers_file.read_text()
    assert emulator.answers()["name-case"] == "exact"


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"no-fact": "exact"}, "no-fact"), ({"name-case": "perhaps"}, "perhaps"), ({"name-case": ["exact"]}, "exact")],
)
def test_what_the_register_does_not_have_is_refused_and_changes_nothing(
    account: Account, changes: dict[str, Any], named: str
) -> None:
    before = account.emulator.answers()
    with pytest.raises(ValueError, match=named), account.emulator.answering({"empty-hook": "refused", **changes}):
        pass
    assert account.emulator.answers() == before


# ---- what experiments on a notebook read -----------------------------------------------------------


def test_what_an_on_start_script_prints_is_in_cloudwatch_logs(account: Account) -> None:
    name = account.make_notebook(account.make_configuration(b"#!/bin/bash\necho first\necho >&2\necho second >&2\n"))
    account.wait_for(name)
    place = {"logGroupName": "/aws/sagemaker/NotebookInstances", "logStreamName": f"{name}/LifecycleConfigOnStart"}
    events = account.client("logs").get_log_events(**place, startFromHead=True)["events"]
    assert [event["message"] for event in events] == ["first", "second"]


def test_what_a_failed_start_printed_is_there_too_and_the_next_one_goes_on(account: Account) -> None:
    name = account.make_notebook(account.make_configuration(b"#!/bin/bash\necho before\nexit 1\n"))
    place = {"logGroupName": "/aws/sagemaker/NotebookInstances", "logStreamName": f"{name}/LifecycleConfigOnStart"}
    for start in (1, 2):
        account.wait_for(name, "Failed")
        events = account.client("logs").get_log_events(**place, startFromHead=True)["events"]
        assert [event["message"] for event in events] == ["before"] * start
        account.sagemaker.start_notebook_instance(NotebookInstanceName=name)
