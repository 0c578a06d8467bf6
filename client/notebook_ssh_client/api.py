"""The stack's API over HTTPS, signed with the person's own AWS credentials.

botocore gives credentials, signature, proxies and certificates; no botocore *client* is made, because loading a
service's description takes longer than the question itself.
"""

from __future__ import annotations

import json
import os
import time
from functools import cached_property
from typing import Any

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's own, not Python's)
    CredentialRetrievalError,
    HTTPClientError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.httpsession import URLLib3Session
from botocore.utils import JSONFileCache, get_environ_proxies

from notebook_ssh_client import __version__
from notebook_ssh_client.failures import FAILED, NO_ANSWER, NOT_ALLOWED, Failure
from notebook_ssh_client.stacks import Stack

ADDRESS_VARIABLE = "AWS_ENDPOINT_URL_EXECUTE_API"
"""Names the API's address with its stage, in place of the one that `setup` found."""

PATIENCE = (5, 30)
"""Seconds to connect, and to answer: API Gateway itself gives up after 29."""

TRIES = 3
PAUSE_SECONDS = 0.3
"""Before the second try; twice as long before the third."""
CLI_CACHE = os.path.join("~", ".aws", "cli", "cache")
"""Where the AWS CLI keeps short-lived credentials of roles; shared, so that nobody types an MFA code twice."""


class Refused(Exception):
    """The API answered, with a status that is not success. code and message are the API's own words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class Api:
    """The API of one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._address = (os.environ.get(ADDRESS_VARIABLE) or stack.api).rstrip("/")

    def get(self, path: str) -> Any:
        """The JSON at `path` (which begins with a slash and needs no quoting)."""
        return self._ask("GET", path)

    def post(self, path: str) -> Any:
        """The JSON that answers an empty POST to `path`."""
        return self._ask("POST", path)

    def get_text(self, path: str) -> str:
        """The text at `path`, for a person."""
        status, body = self._answer("GET", path, "text/plain")
        if status >= 300:
            raise self._refused(status, body)
        return body.decode("utf-8", "replace")

    def _ask(self, method: str, path: str) -> Any:
        """Raises Refused for an answer that names a reason, Failure when there is no answer to be had."""
        status, body = self._answer(method, path, "application/json")
        if status >= 300:
            raise self._refused(status, body)
        try:
            return json.loads(body)
        except ValueError as error:
            raise Failure(f"{self._address} answers something else than JSON; run: notebook-ssh setup") from error

    def _refused(self, status: int, body: bytes) -> Refused:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        told = answer if isinstance(answer, dict) else {}
        # API Gateway's own refusals say {"message": …} or, in one case, {"Message": …}; ours add "error".
        message = str(told.get("message") or told.get("Message") or f"status {status}")
        return Refused(status, str(told.get("error", "")), message)

    def _answer(self, method: str, path: str, accept: str) -> tuple[int, bytes]:
        last = Failure("never asked", FAILED)
        for tried in range(TRIES):
            time.sleep(PAUSE_SECONDS * tried)
            try:
                response = self._http.send(self._signed(method, path, accept))
            except (HTTPClientError, ConnectionError) as error:
                last = self._unreachable(error)
                continue
            if response.status_code < 500 and response.status_code != 429:
                return response.status_code, response.content
            last = Failure(f"the API of stack {self._stack.name} answers {response.status_code}; try again", NO_ANSWER)
        raise last

    def _signed(self, method: str, path: str, accept: str) -> AWSPreparedRequest:
        headers = {"Accept": accept, "User-Agent": f"notebook-ssh/{__version__}"}
        request = AWSRequest(method=method, url=self._address + path, headers=headers)
        SigV4Auth(self._credentials, "execute-api", self._stack.region).add_auth(request)
        return request.prepare()

    def _unreachable(self, error: BotoCoreError) -> Failure:
        return Failure(
            f"the API of stack {self._stack.name} cannot be reached at {self._address} ({error}); "
            "check your network, VPN and HTTPS_PROXY",
            NO_ANSWER,
        )

    @cached_property
    def _http(self) -> URLLib3Session:
        verify = self._session.get_config_variable("ca_bundle") or True
        return URLLib3Session(
            verify=verify,
            proxies=get_environ_proxies(self._address),
            timeout=PATIENCE,  # type: ignore[arg-type]  # the pair is understood; its stubs know one number alone
        )

    @cached_property
    def _session(self) -> botocore.session.Session:
        return session(self._stack.profile)

    @cached_property
    def _credentials(self) -> ReadOnlyCredentials:
        return credentials(self._session, self._stack.profile)


def login_command(profile: str | None) -> str:
    """What a person types to get fresh credentials for `profile`."""
    profile = profile or os.environ.get("AWS_PROFILE")
    return "aws sso login" + (f" --profile {profile}" if profile else "")


def session(profile: str | None) -> botocore.session.Session:
    """A botocore session for `profile` that shares the AWS CLI's cache of role credentials."""
    made = botocore.session.Session(profile=profile)
    try:
        resolver = made.get_component("credential_provider")
    except ProfileNotFound as error:
        raise Failure(
            f"AWS profile {profile or os.environ.get('AWS_PROFILE')!r} does not exist in ~/.aws/config; "
            "run: aws configure sso",
            NOT_ALLOWED,
        ) from error
    cache = JSONFileCache(os.path.expanduser(CLI_CACHE))
    for provider in ("assume-role", "assume-role-with-web-identity", "sso"):
        resolver.get_provider(provider).cache = cache
    return made


def credentials(made: botocore.session.Session, profile: str | None) -> ReadOnlyCredentials:
    """Valid credentials, frozen for one signature. Raises Failure that names the command to run."""
    login = login_command(profile)
    try:
        found = made.get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    except (SSOError, TokenRetrievalError) as error:
        raise Failure(f"your AWS sign-in has expired ({error}); run: {login}", NOT_ALLOWED) from error
    except (CredentialRetrievalError, PartialCredentialsError, ClientError, BotoCoreError) as error:
        raise Failure(f"your AWS credentials cannot be had ({error}); run: {login}", NOT_ALLOWED) from error
    if frozen is None:
        where = f"in profile {profile}" if profile else "on this machine"
        raise Failure(f"there are no AWS credentials {where}; run: {login} (or: aws configure)", NOT_ALLOWED)
    return frozen
