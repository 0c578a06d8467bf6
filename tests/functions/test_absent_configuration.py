"""A lifecycle configuration that is not there, in each of the words in which SageMaker says it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.notebook_env import OWNERS, NotebookEnv, notebook_env

from notebook_ssh.adapters import sagemaker
from notebook_ssh.adapters.clients import client
from notebook_ssh.errors import NotFoundError

PREFIX = "Unable to describe Notebook Instance Lifecycle Config 'arn:aws:sagemaker:us-east-1:123456789012:x/team'."


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


def refusing(monkeypatch: pytest.MonkeyPatch, operation: str, code: str, message: str) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": message}}, operation)

    monkeypatch.setattr(client("sagemaker"), operation, refuse)


@pytest.mark.parametrize(
    ("code", "message", "absent"),
    [
        ("ValidationException", f"{PREFIX} (Details: Notebook Instance Lifecycle Config does not exist.)", True),
        ("ValidationException", PREFIX, True),
        ("ValidationException", "1 validation error detected: Value at 'name'", False),
        ("AccessDeniedException", PREFIX, False),
        ("InternalFailure", PREFIX, False),
    ],
)
def test_what_means_absent(
    env: NotebookEnv, monkeypatch: pytest.MonkeyPatch, code: str, message: str, absent: bool
) -> None:
    refusing(monkeypatch, "describe_notebook_instance_lifecycle_config", code, message)
    with pytest.raises(Exception) as refused:  # noqa: PT011  whatever it is, but the one for an absence
        sagemaker.describe_lifecycle_config("team")
    assert isinstance(refused.value, NotFoundError) is absent


def test_after_a_failed_create_the_configuration_is_read(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.lifecycle_config("better-sagemaker", OWNERS)
    refusing(monkeypatch, "create_notebook_instance_lifecycle_config", "ValidationException", "Unable to create it.")
    sagemaker.create_lifecycle_config("better-sagemaker", b"a", b"b", "team-ssh")
    assert env.on_start("better-sagemaker") == OWNERS


def test_a_create_that_failed_and_made_nothing_has_failed(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "create_notebook_instance_lifecycle_config", "ResourceLimitExceeded", "The limit is reached.")
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        sagemaker.create_lifecycle_config("better-sagemaker", b"a", b"b", "team-ssh")
