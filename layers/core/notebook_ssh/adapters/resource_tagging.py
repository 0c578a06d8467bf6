"""The Resource Groups Tagging API: the tags of all notebooks, 100 at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, retryable

PAGE = 100


def tagged_notebooks(tag_key: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """ARN (in lower case) and tags of every notebook that has the tag `tag_key`, or had it once.

    Never the ground for taking something away: it may lag behind. One request for each 100; pages can be short or
    empty, and only an empty token is the end.
    """
    token = ""
    while True:
        page = _page(tag_key, token)
        for resource in page["ResourceTagMappingList"]:
            yield resource["ResourceARN"].lower(), {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or ()}
        token = page.get("PaginationToken") or ""
        if not token:
            return


def _page(tag_key: str, token: str) -> Mapping[str, Any]:
    try:
        return client("resourcegroupstaggingapi").get_resources(
            ResourceTypeFilters=["sagemaker:notebook-instance"],
            TagFilters=[{"Key": tag_key}],
            ResourcesPerPage=PAGE,
            PaginationToken=token,
        )
    except (ClientError, BotoCoreError) as error:
        raise (retryable(error) or error) from error
