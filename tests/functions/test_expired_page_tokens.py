"""A token for the next page of a list that has expired in between: the list is incomplete, and is read again later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.aws_clients import clients_made_by

from notebook_ssh.adapters import resource_tagging, sagemaker
from notebook_ssh.errors import RetryableError


class Expiring:
    """Answers a first page, and refuses the token of the second as each service does. UNCONFIRMED(expired-page): SageMaker's words."""

    def list_notebook_instances(self, **given: Any) -> dict[str, Any]:
        if "NextToken" in given:
            raise self._refusal("ValidationException", "Invalid NextToken")
        return {"NotebookInstances": [], "NextToken": "more"}

    list_notebook_instance_lifecycle_configs = list_tags = list_notebook_instances

    def get_resources(self, *, PaginationToken: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        if PaginationToken:
            raise self._refusal("PaginationTokenExpiredException", "The specified token has expired")
        return {"ResourceTagMappingList": [], "PaginationToken": "more"}

    @staticmethod
    def _refusal(code: str, message: str) -> ClientError:
        return ClientError({"Error": {"Code": code, "Message": message}}, "List")


LISTS: dict[str, Callable[[], Any]] = {
    "notebooks": sagemaker.list_notebooks,
    "configurations": sagemaker.list_lifecycle_configs,
    "tags": lambda: sagemaker.read_tags("arn").items(),
    "tagged": lambda: resource_tagging.tagged_notebooks("ssh"),
}


@pytest.fixture(autouse=True)
def expiring() -> Iterator[None]:
    with clients_made_by(lambda service: Expiring()):
        yield


@pytest.mark.parametrize("name", LISTS)
def test_is_retried_and_never_taken_for_the_end(name: str) -> None:
    with pytest.raises(RetryableError, match="expired"):
        list(LISTS[name]())


def test_a_first_page_that_is_refused_is_an_error_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**given: Any) -> None:
        raise Expiring._refusal("ValidationException", "1 validation error detected")

    monkeypatch.setattr(Expiring, "list_notebook_instances", staticmethod(refused))
    with pytest.raises(ClientError):
        list(sagemaker.list_notebooks())
