"""Events that say what is not so. An event is a reason to look; what is done follows from what is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.notebook_world import World, a_world


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch) as world:
        world.lifecycle_config("team")
        world.lifecycle_config("others")
        world.notebook("wished", "team", ssh="ngrok")
        world.notebook("quiet", "others")
        world.settle()
        assert world.has_block("team")
        yield world


def an_event(kind: str, name: str, detail: dict[str, Any]) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:notebook-instance/{name}"
    return {"source": "aws.sagemaker", "detail-type": kind, "resources": [arn], "detail": detail}


STATE, TAGS = "SageMaker Notebook Instance State Change", "Tag Change on Resource"
FORGED: list[tuple[str, str, dict[str, Any]]] = [
    (STATE, "wished", {"NotebookInstanceName": "wished", "NotebookInstanceStatus": "Deleting", "Tags": {}}),
    (
        STATE,
        "quiet",
        {"NotebookInstanceName": "quiet", "NotebookInstanceStatus": "InService", "Tags": {"ssh": "ngrok"}},
    ),
    (TAGS, "wished", {"changed-tag-keys": ["ssh"], "tags": {}, "service": "sagemaker", "version": 9e9}),
    (TAGS, "quiet", {"changed-tag-keys": ["ssh"], "tags": {"ssh": "ngrok", "ssh-restart": "now"}, "version": 9e9}),
    (STATE, "nobody", {"NotebookInstanceName": "nobody", "NotebookInstanceStatus": "InService"}),
    (STATE, "quiet", {"NotebookInstanceName": "$(reboot)\n", "NotebookInstanceStatus": {"a": []}}),
]


@pytest.mark.parametrize(("kind", "name", "detail"), FORGED)
def test_a_forged_event_changes_nothing(world: World, kind: str, name: str, detail: dict[str, Any]) -> None:
    def account() -> tuple[Any, ...]:
        names = ("wished", "quiet")
        scripts = {each: world.scripts(each) for each in world.lifecycle_configs()}
        return scripts, [(world.attached_config(each), world.status(each), world.tags(each)) for each in names]

    before, record = account(), world.record("wished")
    world.send("", [(an_event(kind, name, detail), 0)])
    world.settle()
    assert account() == before
    assert world.record("wished").spec == record.spec
    assert world.table.record("quiet") is None
    assert world.table.record("nobody") is None
