"""SageMaker and EC2 of moto, answering inside ministack's one port.

ministack has no SageMaker, and its EC2 accepts what the real one refuses (a duplicate rule, revoking a rule that
does not exist, any number of rules). moto's are faithful there, so their requests go to moto in process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from botocore.awsrequest import AWSPreparedRequest
from botocore.compat import HTTPHeaders
from moto.core.botocore_stubber import BotocoreStubber

Query = dict[str, list[str]]
Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[str, str, dict[str, str], bytes, Query], Any]

HOSTS = {"sagemaker": "api.sagemaker", "ec2": "ec2"}
"""How the services' host names begin; moto tells them apart by it."""


def moto_handler(service: str, after: Callable[[dict[str, str], bytes], None] | None = None) -> Handler:
    """A ministack service handler that lets moto answer for `service`.

    after: called with the headers (names in lower case) and the body of each request that succeeded.
    """
    moto = BotocoreStubber()
    # moto is not made for threads: one request at a time, in their order.
    turn = asyncio.Lock()

    def ask(method: str, headers: dict[str, str], body: bytes) -> Answer:
        url = f"https://{HOSTS[service]}.{_region(headers)}.amazonaws.com/"
        request = AWSPreparedRequest(
            method=method, url=url, headers=HTTPHeaders.from_dict(headers), body=body, stream_output=False
        )
        # None only for hosts that moto does not know.
        status, answered, content = cast(tuple[int, dict[str, str], str | bytes], moto.process_request(request))
        return status, dict(answered), content.encode() if isinstance(content, str) else content

    async def handle(method: str, _path: str, headers: dict[str, str], body: bytes, _query: Query) -> Answer:
        async with turn:
            answer = await asyncio.to_thread(ask, method, headers, body)
        if after is not None and answer[0] == 200:
            after(headers, body)
        return answer

    return handle


def _region(headers: dict[str, str]) -> str:
    """The region of the signature's scope: Credential=key/date/region/service/aws4_request."""
    scope = headers.get("authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
    return scope[2] if len(scope) > 2 else "us-east-1"
