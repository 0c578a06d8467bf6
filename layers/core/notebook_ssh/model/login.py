"""Decides who gets a certificate for which notebook.

IAM has decided before: the API's resource policy denies all but `LoginPrincipals`, and the caller's own policies say
which notebooks. What IAM does not see is decided here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from notebook_ssh.model.caller import is_user_of, role_of_caller
from notebook_ssh.model.certificate import key_id_of
from notebook_ssh.model.record import Record
from notebook_ssh.model.spelling import OTHER_SPELLING, is_spelled, other_spelling
from notebook_ssh.model.text import iso_time

ROUTE = "/notebooks/{name}/certificate"


class RefusalCode(StrEnum):
    """Why there is no certificate; a code of docs/api.md."""

    NOT_A_PRINCIPAL = "not-a-principal"
    NOTEBOOK_ROLE = "notebook-role"
    OTHER_SPELLING = OTHER_SPELLING
    INVALID_TAG = "invalid-tag"
    OFF = "off"
    EXPIRED = "expired"
    UNKNOWN_AGE = "unknown-age"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as API Gateway passes it (`requestContext.identity`)."""

    # `userArn`, and the account in it may be another one.
    arn: str
    # `caller`: the unique id of the user, or the one of the role with the session's name.
    unique_id: str
    # The account of the API.
    account: str


@dataclass(frozen=True, slots=True)
class Admit:
    """The caller gets a certificate for one notebook."""

    key_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The caller gets none, and why: a sentence that says what to do."""

    code: RefusalCode
    message: str


def decide_login(
    record: Record, path: str, caller: Caller, notebook_roles: Collection[str], now: int, tag_key: str
) -> Admit | Refuse:
    """Decide about a certificate for the notebook of `record` at `now` (epoch seconds).

    path: of the request, as it was signed. IAM has compared exactly these characters, and capitals count there, so that
    a notebook in another spelling may be one that a policy denies. notebook_roles: the execution roles of all notebooks.
    """
    key_id = key_id_of(caller.arn, caller.unique_id)
    role = role_of_caller(caller.arn, caller.account)
    if key_id is None or (role is None and not is_user_of(caller.arn, caller.account)):
        return Refuse(
            RefusalCode.NOT_A_PRINCIPAL,
            "Certificates are for roles and IAM users of the stack's account, whose ARN and unique id have at most 400"
            " printable characters together: assume a role there.",
        )
    if role in notebook_roles:
        return Refuse(
            RefusalCode.NOTEBOOK_ROLE,
            f"{role} is the execution role of a notebook, and code that runs there has it: use a role or user of your own.",
        )
    if not is_spelled(path, ROUTE, record.name):
        return Refuse(RefusalCode.OTHER_SPELLING, other_spelling(record.name))
    return _of_the_notebook(record, now, tag_key) or Admit(key_id)


def _of_the_notebook(record: Record, now: int, tag_key: str) -> Refuse | None:
    spec, name = record.spec, record.name
    if spec.problem:
        return Refuse(RefusalCode.INVALID_TAG, spec.problem.message)
    if not spec.effective_modes(now):
        if spec.until is not None and now >= spec.until and spec.modes:
            return Refuse(
                RefusalCode.EXPIRED,
                f"Access to {name} ended at {iso_time(spec.until)}: its owner sets the tag {tag_key}-until again or removes it.",
            )
        return Refuse(RefusalCode.OFF, f"SSH to {name} is off: its owner turns it on with the tag {tag_key}.")
    if not record.created_at:
        return Refuse(
            RefusalCode.UNKNOWN_AGE,
            f"The stack does not know yet when {name} was created, and without that a certificate could open another"
            " notebook of this name: try again in a minute.",
        )
    return None
