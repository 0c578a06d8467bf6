"""Requests to the stack's API, signed here and sent as they are: no program on the way may change the path."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import NamedTuple
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from notebook_ssh_verify.account import Account, AwsError, Refusal
from notebook_ssh_verify.lab import Lab

TIMEOUT_S = 60.0


class Response(NamedTuple):
    """What the API answered."""

    status: int
    body: str


def get(lab: Lab, account: Account, path: str) -> Response:
    """Return what the API of the stack under test answers to GET `path`, which begins with a slash.

    It is evidence. Raises AwsError if there is no answer.
    """
    url = f"{_base(lab)}{path}"
    if urlsplit(url).scheme not in ("https", "http"):
        raise AwsError("execute-api:Invoke", Refusal("NoAddress", f"{url} is no address of an API", 0))
    signed = AWSRequest(method="GET", url=url)
    SigV4Auth(account.keys(), "execute-api", account.region).add_auth(signed)
    request = urllib.request.Request(url, headers=dict(signed.headers.items()))  # noqa: S310  checked above
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            response = Response(answer.status, answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as refused:
        with refused:
            response = Response(refused.code, refused.read().decode(errors="replace"))
    except OSError as error:
        account.note(f"GET {path}", f"no answer: {error}")
        raise AwsError("execute-api:Invoke", Refusal(type(error).__name__, str(error), 0)) from error
    account.note(f"GET {path}", f"{response.status} {response.body}")
    return response


def _base(lab: Lab) -> str:
    """The API's address: the stack's output, or where an account on this machine has it, which no DNS knows."""
    api = urlsplit(lab.stack.get("ApiUrl", ""))
    if local := lab.environ.get("AWS_ENDPOINT_URL"):
        return f"{local}/_aws/execute-api/{(api.hostname or '').partition('.')[0]}{api.path}"
    return api.geturl()
