"""Events that say what is not so. An event is a reason to look; what is done follows from what is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.notebook_env import NotebookEnv, notebook_env


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        env.lifecycle_config("team")
        env.lifecycle_config("others")
        env.notebook("requested", "team", ssh="ngrok")
        env.notebook("quiet", "others")
        env.settle()
        assert env.has_block("team")
        yield env


def an_event(kind: str, name: str, detail: dict[str, Any]) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/{name}"
    return {"source": "aws.sagemaker", "detail-type": kind, "resources": [arn], "detail": detail}


STATE, TAGS = "SageMaker Notebook Instance State Change", "Tag Change on Resource"
FORGED: list[tuple[str, str, dict[str, Any]]] = [
    (STATE, "requested", {"NotebookInstanceName": "requested", "NotebookInstanceStatus": "Deleting", "Tags": {}}),
    (
        STATE,
        "quiet",
        {"NotebookInstanceName": "quiet", "NotebookInstanceStatus": "InService", "Tags": {"ssh": "ngrok"}},
    ),
    (TAGS, "requested", {"changed-tag-keys": ["ssh"], "tags": {}, "service": "sagemaker", "version": 9e9}),
    (TAGS, "quiet", {"changed-tag-keys": ["ssh"], "tags": {"ssh": "ngrok", "ssh-restart": "now"}, "version": 9e9}),
    (STATE, "nobody", {"NotebookInstanceName": "nobody", "NotebookInstanceStatus": "InService"}),
    (STATE, "quiet", {"NotebookInstanceName": "$(reboot)\n", "NotebookInstanceStatus": {"a": []}}),
]


@pytest.mark.parametrize(("kind", "name", "detail"), FORGED)
def test_a_forged_event_changes_nothing(env: NotebookEnv, kind: str, name: str, detail: dict[str, Any]) -> None:
    def account() -> tuple[Any, ...]:
        names = ("requested", "quiet")
        scripts = {each: env.scripts(each) for each in env.lifecycle_configs()}
        return scripts, [(env.attached_config(each), env.status(each), env.tags(each)) for each in names]

    before, record = account(), env.record("requested")
    env.send("", [(an_event(kind, name, detail), 0)])
    env.settle()
    assert account() == before
    assert env.record("requested").spec == record.spec
    assert env.table.record("quiet") is None
    assert env.table.record("nobody") is None
