"""Who gets a certificate for which notebook."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.builders import NOW, a_record

from notebook_ssh.model.login import Admit, Caller, RefusalCode, Refuse, decide_login
from notebook_ssh.model.record import NotebookState, Record
from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec

ACCOUNT = "123456789012"
ROLE = Caller(f"arn:aws:sts::{ACCOUNT}:assumed-role/data-science/mario", "AROAEXAMPLE:mario", ACCOUNT)
USER = Caller(f"arn:aws:iam::{ACCOUNT}:user/people/mario", "AIDAEXAMPLE", ACCOUNT)
RECORD = a_record(name="My-Notebook", created_at=NOW - 5000)
PATH = "/notebooks/My-Notebook/certificate"
ROLES = {"demo-role", "other-notebooks-role"}


def decide(record: Record = RECORD, path: str = PATH, caller: Caller = ROLE, now: int = NOW) -> Admit | Refuse:
    return decide_login(record, path, caller, ROLES, now, "ssh")


@pytest.mark.parametrize("caller", [ROLE, USER, replace(ROLE, arn=ROLE.arn.replace("arn:aws:", "arn:aws-us-gov:"))])
def test_a_role_or_user_of_the_account_is_admitted_under_its_name(caller: Caller) -> None:
    assert decide(caller=caller) == Admit(f"{caller.arn} {caller.unique_id}")


@pytest.mark.parametrize("state", list(NotebookState))
def test_in_any_state_since_a_notebook_may_be_woken(state: NotebookState) -> None:
    assert isinstance(decide(replace(RECORD, state=state)), Admit)


@pytest.mark.parametrize(
    "caller",
    [
        replace(ROLE, account="210987654321"),
        replace(USER, account="210987654321"),
        replace(ROLE, arn=f"arn:aws:iam::{ACCOUNT}:root"),
        replace(ROLE, arn=f"arn:aws:sts::{ACCOUNT}:federated-user/mario"),
        replace(ROLE, arn=f"arn:aws:iam::{ACCOUNT}:role/data-science"),
        replace(ROLE, arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/data-science"),
        replace(ROLE, arn=""),
        replace(ROLE, unique_id=""),
        replace(ROLE, arn=ROLE.arn + "\nx"),
        replace(ROLE, arn=ROLE.arn + 400 * "x"),
    ],
)
def test_anybody_else_is_no_principal(caller: Caller) -> None:
    verdict = decide(caller=caller)
    assert isinstance(verdict, Refuse)
    assert verdict.code == RefusalCode.NOT_A_PRINCIPAL


@pytest.mark.parametrize("role", sorted(ROLES))
def test_no_notebooks_role_is_admitted_to_any_notebook(role: str) -> None:
    caller = Caller(f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/SageMaker", "AROAEXAMPLE:SageMaker", ACCOUNT)
    verdict = decide(caller=caller)
    assert isinstance(verdict, Refuse)
    assert (verdict.code, role in verdict.message) == (RefusalCode.NOTEBOOK_ROLE, True)


def test_a_user_of_a_notebook_roles_name_is_not_that_role() -> None:
    assert isinstance(decide(caller=replace(USER, arn=f"arn:aws:iam::{ACCOUNT}:user/demo-role")), Admit)


def test_the_path_must_be_what_iam_has_compared() -> None:
    verdict = decide(path=PATH.lower())
    assert isinstance(verdict, Refuse)
    assert (verdict.code, "My-Notebook" in verdict.message) == (RefusalCode.OTHER_SPELLING, True)


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({}, RefusalCode.OFF),
        ({"ssh": "off"}, RefusalCode.OFF),
        ({"ssh": "ngork"}, RefusalCode.INVALID_TAG),
        ({"ssh": "ngrok", "ssh-until": "2020-01-01T00:00Z"}, RefusalCode.EXPIRED),
        ({"ssh": "off", "ssh-until": "2020-01-01T00:00Z"}, RefusalCode.OFF),
    ],
)
def test_none_for_a_notebook_that_is_not_to_be_reached(tags: dict[str, str], code: RefusalCode) -> None:
    verdict = decide(replace(RECORD, spec=parse_spec(tags, "ssh")))
    assert isinstance(verdict, Refuse)
    assert verdict.code == code
    assert verdict.message.endswith(".")


def test_none_from_the_second_on_in_which_access_ends() -> None:
    record = replace(RECORD, spec=NotebookSpec(modes=(Mode.NGROK,), until=NOW))
    assert isinstance(decide(record, now=NOW - 1), Admit)
    assert isinstance(decide(record, now=NOW), Refuse)


def test_none_while_the_notebooks_age_is_unknown() -> None:
    """A certificate without it would open the next notebook of this name as well."""
    verdict = decide(replace(RECORD, created_at=0))
    assert isinstance(verdict, Refuse)
    assert verdict.code == RefusalCode.UNKNOWN_AGE
