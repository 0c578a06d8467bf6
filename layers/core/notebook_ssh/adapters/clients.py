"""One boto3 client for each service, and the translation of AWS errors into the stack's own.

Clients are made on first use and kept between invocations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast, overload

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError as BotoConnectionError,
    HTTPClientError,
)

from notebook_ssh.errors import InvalidStateError, NotAllowedError, NotFoundError, RetryableError

if TYPE_CHECKING:
    from botocore.paginate import Paginator
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_kms.client import KMSClient
    from mypy_boto3_resourcegroupstaggingapi.client import ResourceGroupsTaggingAPIClient
    from mypy_boto3_sagemaker.client import SageMakerClient
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_ssm.client import SSMClient

P = ParamSpec("P")
T = TypeVar("T")

THROTTLED = frozenset(
    {
        "ThrottlingException",
        "ThrottledException",
        "Throttling",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "RequestThrottled",
        "LimitExceededException",
    }
)
"""Codes with which services limit the rate of requests; each service has its own."""

DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "AuthorizationError"})
"""Codes with which services deny an action."""

AWS_ERRORS = (RetryableError, NotAllowedError, ClientError, BotoCoreError)
"""Whatever a call can raise but NotFoundError, for calls that nothing depends on."""

_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:\w+)")

NO_SUCH_CONFIG = "Unable to describe Notebook Instance Lifecycle Config"
"""How SageMaker's ValidationException for an absent configuration begins, with or without the reason."""

NO_SUCH_ATTRIBUTE = "attribute that does not exist in the item"
"""DynamoDB's ValidationException for an invalid expression: an error of this code, and not an absence."""


@cache
def _session() -> Session:
    return Session()


@overload
def client(service: Literal["dynamodb"]) -> DynamoDBClient: ...
@overload
def client(service: Literal["ec2"]) -> EC2Client: ...
@overload
def client(service: Literal["events"]) -> EventBridgeClient: ...
@overload
def client(service: Literal["kms"]) -> KMSClient: ...
@overload
def client(service: Literal["resourcegroupstaggingapi"]) -> ResourceGroupsTaggingAPIClient: ...
@overload
def client(service: Literal["sagemaker"]) -> SageMakerClient: ...
@overload
def client(service: Literal["secretsmanager"]) -> SecretsManagerClient: ...
@overload
def client(service: Literal["sns"]) -> SNSClient: ...
@overload
def client(service: Literal["sqs"]) -> SQSClient: ...
@overload
def client(service: Literal["ssm"]) -> SSMClient: ...
def client(service: str) -> Any:
    """Return the client for a service. Time-outs are short and attempts few, because the queues retry."""
    return _client(service)


@cache
def _client(service: str) -> Any:
    config = Config(
        connect_timeout=3,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 3},
        user_agent="notebook-ssh",
        parameter_validation=False,
    )
    make = cast(Any, _session().client)  # typed by service name, which is not a literal here
    return make(service, config=config)


def call(operation: Callable[P, T], *args: P.args, **parameters: P.kwargs) -> T:
    """Make one request: `call(client("sqs").send_message, QueueUrl=…)`. Raises as `translated_errors` does."""
    with translated_errors():
        return operation(*args, **parameters)


def pages(paginator: Paginator[T], **parameters: Any) -> Iterator[T]:
    """Yield the pages of a paginator. Raises as `translated_errors` does; pages before the error were yielded."""
    with translated_errors():
        yield from paginator.paginate(**parameters)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the stack's own errors in place of AWS errors.

    RetryableError: the request was throttled, the service failed (5xx), or there was no answer.
    NotFoundError: SageMaker reports that the resource does not exist.
    InvalidStateError: SageMaker reports that the notebook's status does not allow the call.
    NotAllowedError: a policy denies the action.

    Any other ClientError or BotoCoreError is raised unchanged.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        translated = translate(error)
        if translated is error:
            raise
        raise translated from error


def translate(error: Exception) -> Exception:
    """Return the stack's own error for an AWS error, or the error itself when there is none."""
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return RetryableError(f"no answer from AWS: {type(error).__name__}")
    if not isinstance(error, ClientError):
        return error
    code, message = code_of(error), message_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "PaginationTokenExpiredException":  # Resource Groups Tagging API reference, GetResources
        return RetryableError("the list of tagged resources expired while it was read")
    if code in THROTTLED or status >= 500:
        return RetryableError(f"{error.operation_name}: {code}")
    if code in DENIED:
        return NotAllowedError(action_of(error))
    if code == "ResourceNotFound":
        return NotFoundError(message)
    # ValidationException is SageMaker's one code for all of these; the messages are from its answers.
    if code == "ValidationException" and NO_SUCH_ATTRIBUTE not in message:
        if "RecordNotFound" in message or "does not exist" in message or message.startswith(NO_SUCH_CONFIG):
            return NotFoundError(message)
        if "Unable to transition" in message:
            return InvalidStateError(message)
    return error


def code_of(error: Exception) -> str:
    """Return the service's error code, for example `ThrottlingException`; empty for an error of another origin."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def action_of(error: ClientError) -> str:
    """Return the action that was denied, as IAM names it: from the message, else the operation's name."""
    found = _ACTION.search(message_of(error))
    # Only EC2 has this code, and encodes its message.
    prefix = "ec2:" if code_of(error) == "UnauthorizedOperation" else ""
    return found[1] if found else f"{prefix}{error.operation_name}"


def message_of(error: ClientError) -> str:
    """Return the service's own message. Decisions use it only where AWS gives no code."""
    return error.response.get("Error", {}).get("Message", "")
