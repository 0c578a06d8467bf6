"""The Resource Groups Tagging API: the tags of all notebooks, 100 at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from notebook_ssh.adapters.clients import call, client

PAGE = 100
"""Most resources of one page (API reference, GetResources, `ResourcesPerPage`)."""


def tagged_notebooks(tag_key: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield ARN (in lower case) and tags of every notebook that has, or once had, the tag `tag_key`.

    One request for each 100. Pages can be short or empty; only an empty token is the end. The list can be older than
    the tags, so nothing may be removed because of it. Raises RetryableError when a page cannot be read.
    """
    token = ""
    while True:
        page = call(
            client("resourcegroupstaggingapi").get_resources,
            ResourceTypeFilters=["sagemaker:notebook-instance"],
            TagFilters=[{"Key": tag_key}],
            ResourcesPerPage=PAGE,
            PaginationToken=token,
        )
        for resource in page["ResourceTagMappingList"]:
            yield resource["ResourceARN"].lower(), {tag["Key"]: tag["Value"] for tag in resource.get("Tags") or ()}
        token = page.get("PaginationToken") or ""
        if not token:
            return
