"""Reads the notebook's own tags from SageMaker: the child `list-tags`, the fallback without the stack.

The request is signed as a report is (agent.py), with the notebook's role alone: an AWS configuration of the user's
(~/.aws, ~/.boto, a credential_process) is for other work, and is not read.
"""

from __future__ import annotations

import json
import os
import time

from agent import INSTALL_DIR, REGION, StackClient, fetch, log, sign
from worker.model import Json
from worker.texts import one_line

# The domains of AWS's partitions, by the second part of an ARN (botocore's partitions.json).
DOMAINS = {
    "aws": "amazonaws.com",
    "aws-us-gov": "amazonaws.com",
    "aws-cn": "amazonaws.com.cn",
    "aws-eusc": "amazonaws.eu",
    "aws-iso": "c2s.ic.gov",
    "aws-iso-b": "sc2s.sgov.gov",
    "aws-iso-e": "cloud.adc-e.uk",
    "aws-iso-f": "csp.hci.ic.gov",
}
MOST_PAGES = 10  # of 50 tags each: a notebook has at most 50 of users and some of AWS


def read_own_tags(client: StackClient) -> dict[str, str] | None:
    """Return the notebook's own tags, or None if they cannot be read."""
    request = {"arn": client.arn, "clock_offset": client.clock_offset}
    result = client.run_helper(INSTALL_DIR + "worker.py", "list-tags", request)
    tags: dict[str, str] | None = result.get("tags")
    if tags is None:
        log(f"the notebook's tags cannot be read: {one_line(result.get('text'))}")
    return tags


def list_tags(request: Json) -> None:
    """Print {"tags"}: those of the notebook `arn`, or {"text"}: why SageMaker does not return them."""
    tags: dict[str, str] = {}
    token = None
    try:
        for _ in range(MOST_PAGES):
            page = request_page(request["arn"], token, time.time() + request["clock_offset"])
            tags.update((tag["Key"], tag["Value"]) for tag in page["Tags"])
            token = page.get("NextToken")
            if not token:
                print(json.dumps({"tags": tags}))
                return
        reason = f"more than {MOST_PAGES} pages of tags"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = repr(error)
    print(json.dumps({"text": reason}))


def request_page(arn: str, token: str | None, now: float) -> Json:
    """Return one response of ListTags (API reference of SageMaker). ValueError if it is not one."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_SAGEMAKER")
    url = endpoint or f"https://api.sagemaker.{REGION}.{DOMAINS.get(arn.split(':')[1], DOMAINS['aws'])}"
    body = json.dumps({"ResourceArn": arn, **({"NextToken": token} if token else {})}).encode()
    more = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "SageMaker.ListTags"}
    url = url.rstrip("/") + "/"
    status, text, _ = fetch(url, sign(url, body, now, "sagemaker", **more), body)
    if status != 200:
        raise ValueError(f"status {status}: {text[:200]}")
    return dict(json.loads(text))
