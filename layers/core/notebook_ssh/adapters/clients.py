"""One botocore client per service, made when first asked for and kept between invocations.

botocore alone, without boto3: less to load for the same calls (docs/decisions/0001-botocore-in-the-layer.md).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionError as BotoConnectionError,
    HTTPClientError,
)

from notebook_ssh.errors import RetryableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_events.client import EventBridgeClient
    from mypy_boto3_resourcegroupstaggingapi.client import ResourceGroupsTaggingAPIClient
    from mypy_boto3_sagemaker.client import SageMakerClient
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_ssm.client import SSMClient

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
"""Codes by which AWS services say "later" (each service has its own word)."""


@cache
def _session() -> botocore.session.Session:
    return botocore.session.get_session()


@overload
def client(service: Literal["dynamodb"]) -> DynamoDBClient: ...
@overload
def client(service: Literal["ec2"]) -> EC2Client: ...
@overload
def client(service: Literal["events"]) -> EventBridgeClient: ...
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
    """The client for `service`: short time-outs and few tries, because the queue is the real retry."""
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
    return cast(Any, _session().create_client(service, config=config))


def code_of(error: Exception) -> str:
    """The service's error code, for example `ThrottlingException`; empty when the error is none of the service's."""
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def message_of(error: ClientError) -> str:
    """The service's own sentence. For decisions only where AWS gives no code; never for people as it is."""
    return error.response.get("Error", {}).get("Message", "")


def retryable(error: Exception) -> RetryableError | None:
    """`error` as a RetryableError when trying again can help; None when it cannot, or when nobody knows.

    Throttling, the service's own faults (5xx) and a broken connection pass by themselves.
    """
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return RetryableError(f"no answer from AWS: {type(error).__name__}")
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code_of(error) in THROTTLED or status >= 500:
            return RetryableError(f"{error.operation_name}: {code_of(error)}")
    return None
