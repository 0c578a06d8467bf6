"""Calls the stack's API over HTTPS, signed with the user's own AWS credentials.

botocore provides credentials, signature, proxies and certificates. No botocore *client* is created, because loading a
service model takes longer than the request itself.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import BotoCoreError, ConnectionError as BotocoreConnectionError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from notebook_ssh_client import __version__, credentials, messages
from notebook_ssh_client.errors import (
    EXIT_ACCESS_DENIED,
    EXIT_FAILURE,
    EXIT_NOT_CONNECTABLE,
    EXIT_UNREACHABLE,
    CliError,
)
from notebook_ssh_client.settings import Stack, require_private_url

if TYPE_CHECKING:
    import botocore.session
    from botocore.credentials import ReadOnlyCredentials

# The environment variable that overrides the API's URL (with its stage) in the settings.
ENDPOINT_ENV_VAR = "AWS_ENDPOINT_URL_EXECUTE_API"

# Seconds to connect and to read: API Gateway itself times out after 29.
TIMEOUT_S = (5, 30)

# The code of a response to a request that spells the notebook's name otherwise (docs/api.md).
OTHER_SPELLING = "other-spelling"

MAX_ATTEMPTS = 3
RETRY_DELAY_S = 0.3  # before the second attempt; twice as long before the third


class ApiError(Exception):
    """An error response of the API."""

    def __init__(self, status: int, code: str, message: str, remedy: str = "", name: str = "") -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status  # the HTTP status code
        self.code = code  # the member "error" of the body; "" in API Gateway's own responses
        self.message = message
        self.remedy = remedy  # of status 401 and 403: how to renew the credentials
        self.name = name  # of the code OTHER_SPELLING: the notebook's name as SageMaker spells it


class ApiClient:
    """A client of one stack's API. Raises CliError for an API that is neither HTTPS nor on this machine."""

    def __init__(
        self,
        stack: Stack,
        *,
        timeout_s: tuple[float, float] = TIMEOUT_S,  # to connect and to read
        attempts: int = MAX_ATTEMPTS,
        may_ask: bool = True,  # the user, for an MFA code
    ) -> None:
        self._stack = stack
        self._timeout_s, self._attempts, self._may_ask = timeout_s, attempts, may_ask
        self._endpoint = (os.environ.get(ENDPOINT_ENV_VAR) or stack.api_url).rstrip("/")
        require_private_url(self._endpoint)

    def get(self, path: str) -> Any:
        """Return the JSON at `path` (which begins with a slash and needs no quoting). Raises ApiError or CliError."""
        return self._request_json("GET", path)

    def post(self, path: str, content: Any = None) -> Any:
        """POST `content` as JSON, or nothing, to `path`; return the JSON of the response. Raises ApiError or CliError."""
        return self._request_json("POST", path, b"" if content is None else json.dumps(content).encode())

    def get_text(self, path: str) -> str:
        """Return the plain text at `path`. Raises ApiError or CliError."""
        status, body = self._request("GET", path, "text/plain")
        if status >= 300:
            raise self._api_error(status, body)
        return body.decode("utf-8", "replace")

    def _request_json(self, method: str, path: str, content: bytes = b"") -> Any:
        status, body = self._request(method, path, "application/json", content)
        if status >= 300:
            raise self._api_error(status, body)
        try:
            return json.loads(body)
        except ValueError as error:
            raise CliError(f"{self._endpoint} did not return JSON; run: notebook-ssh setup") from error

    def _request(self, method: str, path: str, accept: str, content: bytes = b"") -> tuple[int, bytes]:
        """Send a request, with retries, and return the status and body. Raises CliError without a usable response."""
        last_error = CliError("no request was sent", EXIT_FAILURE)
        for attempt in range(self._attempts):
            time.sleep(RETRY_DELAY_S * attempt)
            request, started_at = self._sign(method, path, accept, content), time.monotonic()
            try:
                response = self._http.send(request)
            except (HTTPClientError, BotocoreConnectionError) as error:
                messages.explain(f"{method} {self._endpoint}{path}: {error}")
                last_error = self._unreachable_error(error)
                continue
            took_ms = (time.monotonic() - started_at) * 1000
            messages.explain(f"{method} {self._endpoint}{path}: {response.status_code} in {took_ms:.0f} ms")
            if response.status_code in (401, 403):
                self._check_date(response.headers)
            answered = response.status_code < 500 and response.status_code != 429
            if answered or b'"error":"paused"' in response.content:
                return response.status_code, response.content
            last_error = CliError(
                f"the API of stack {self._stack.name} returned status {response.status_code}; try again later",
                EXIT_UNREACHABLE,
            )
        raise last_error

    def _api_error(self, status: int, body: bytes) -> ApiError:
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        fields = content if isinstance(content, dict) else {}
        # API Gateway's own responses have {"message": …} or, in one case, {"Message": …}; the stack's also have "error".
        message = str(fields.get("message") or fields.get("Message") or f"status {status}")
        if fields.get("policy"):
            message = f"{message.rstrip('.')}; the policy for users is {fields['policy']}"
        remedy = credentials.remedy(self._session, self._stack.profile) if status in (401, 403) else ""
        return ApiError(status, str(fields.get("error", "")), message, remedy, str(fields.get("name", "")))

    def _sign(self, method: str, path: str, accept: str, content: bytes) -> AWSPreparedRequest:
        headers = {"Accept": accept, "User-Agent": f"notebook-ssh/{__version__}"}
        if content:
            headers["Content-Type"] = "application/json"
        request = AWSRequest(method=method, url=self._endpoint + path, headers=headers, data=content)
        signer = SigV4Auth(self._credentials, "execute-api", self._stack.region)  # type: ignore[arg-type]  # AccessKey
        signer.add_auth(request)
        return request.prepare()

    def _check_clock(self) -> None:
        """Raise CliError if the reason for an error is that the clock is wrong: also a token only seems to be expired."""
        try:
            response = self._http.send(AWSRequest(method="GET", url=self._endpoint).prepare())
        except (HTTPClientError, BotocoreConnectionError):
            return
        self._check_date(response.headers)

    def _check_date(self, headers: Mapping[str, str]) -> None:
        skew_s = credentials.clock_skew(headers, time.time())
        if abs(skew_s) > credentials.MAX_CLOCK_SKEW_S:
            raise credentials.clock_error(skew_s)

    def _unreachable_error(self, error: BotoCoreError) -> CliError:
        return CliError(
            f"cannot reach the API of stack {self._stack.name} at {self._endpoint} ({error}); "
            "check your network, VPN and HTTPS_PROXY",
            EXIT_UNREACHABLE,
        )

    @cached_property
    def _http(self) -> URLLib3Session:
        named = credentials.authorities(self._stack.profile, os.environ, lambda: self._session)
        return URLLib3Session(
            verify=named or True,  # type: ignore[arg-type]  # the stubs accept no path
            proxies=get_environ_proxies(self._endpoint),
            timeout=self._timeout_s,  # type: ignore[arg-type]  # the stubs accept one number only
        )

    @cached_property
    def _session(self) -> botocore.session.Session:
        return credentials.create_session(self._stack.profile, self._stack.region, may_ask=self._may_ask)

    @cached_property
    def _credentials(self) -> ReadOnlyCredentials | credentials.AccessKey:
        key = credentials.environment_key(self._stack.profile, os.environ)
        if key is not None:
            messages.explain("credentials: env, profile -")
            return key
        try:
            return credentials.load_credentials(self._session, self._stack.profile)
        except CliError:
            self._check_clock()
            raise


def to_cli_error(error: ApiError, stack: Stack) -> CliError:
    """Translate an error response into a message that includes what to do."""
    message = error.message.rstrip(".")
    if error.status == 409 or error.code in ("not-wakeable", "paused"):
        return CliError(error.message, EXIT_NOT_CONNECTABLE)
    if error.status in (401, 403):
        return _access_error(error, stack)
    if error.status == 404 and not error.code:
        return CliError(f"{stack.api_url} is not the API of a notebook-ssh stack ({message}); run: notebook-ssh setup")
    return CliError(f"stack {stack.name} returned an error: {error.message}", EXIT_FAILURE)


def _access_error(error: ApiError, stack: Stack) -> CliError:
    message = error.message.rstrip(".")
    if "expired" in message.lower():
        return CliError(f"your AWS credentials have expired; {error.remedy}", EXIT_ACCESS_DENIED)
    if "token" in message.lower() or "signature" in message.lower():
        return CliError(f"AWS rejected your credentials ({message}); {error.remedy}", EXIT_ACCESS_DENIED)
    return CliError(
        f"{credentials.identity(stack.profile)} is not allowed to call the API of stack {stack.name} ({message}). If "
        "these are the right credentials, ask the stack's admin, who sets in its parameters which users may look up "
        "notebooks. Inside a VPC with a private execute-api endpoint, a public API cannot be reached",
        EXIT_ACCESS_DENIED,
    )
