"""Every 403 of the functions names the managed policy for users, as API Gateway's own do, and never a notebook's role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.api_env import ApiEnv, Said, api_env
from support.builders import a_record

from notebook_ssh.model.record import NotebookState

NOTEBOOKS_ROLE = "DataScience"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        yield env


def caller(arn: str) -> dict[str, Any]:
    return {"requestId": "r", "accountId": "123456789012", "identity": {"userArn": arn}}


REFUSALS: dict[str, Callable[[ApiEnv], Said]] = {
    "not-wakeable": lambda api: api.start(),
    "not-a-role": lambda api: api.report(requestContext=caller("arn:aws:iam::123456789012:user/ana")),
    "other-role": lambda api: api.report(requestContext=caller("arn:aws:sts::123456789012:assumed-role/Other/x")),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_names_the_policy_and_not_the_notebooks_role(api: ApiEnv, code: str) -> None:
    api.knows(a_record(role=NOTEBOOKS_ROLE, state=NotebookState.STOPPED, started_at=None))
    said = REFUSALS[code](api)
    assert (said.status, said.json["error"]) == (403, code)
    assert "NotebookSshUser" in said.json["policy"]
    assert NOTEBOOKS_ROLE not in said.text
