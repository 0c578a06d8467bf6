"""What the emulated AWS cannot do it refuses: an answer that holds too much would pass for what was asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from environment import LocalEnv

LINES = (
    '{"level":"INFO","message":"dry run","n":1,"who":{"name":"ana"}}',
    '{"level":"WARNING","message":"run dry"}',
    "DRY RUN of one",
    "drying, running",
    '["WARNING"]',
)


@pytest.fixture(scope="module")
def group(env: LocalEnv) -> Iterator[str]:
    """A log group whose only stream holds LINES."""
    logs, name = env.emulator.client("logs"), "/test/refusals"
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="one")
    now = int(time.time() * 1000)
    logs.put_log_events(
        logGroupName=name,
        logStreamName="one",
        logEvents=[{"timestamp": now + number, "message": line} for number, line in enumerate(LINES)],
    )
    yield name
    logs.delete_log_group(logGroupName=name)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", [0, 1, 2, 3, 4]),
        ('"dry run"', [0]),
        ("dry run", [0, 1]),
        ("run", [0, 1]),
        ("RUN", [2]),
        ('"DRY RUN" one', [2]),
        ('"level":"INFO"', None),
        ('"\\"level\\":\\"INFO\\""', [0]),
        ('{ $.level = "WARNING" }', [1]),
        ('{ $.level = "WARNING" || $.level = "INFO" }', [0, 1]),
        ('{$.level="INFO"&&$.message="dry run"}', [0]),
        ('{ $.level = "INFO" && $.message = "run dry" }', []),
        ('{ $.who.name = "ana" }', [0]),
        ('{ $.level = "info" }', []),
        ('{ $.nothing = "INFO" }', []),
        *((unclear, None) for unclear in ("-dry", "?dry ?run", "%dry.*%", "[a, b]", "d*", "a.b", '"open', "{}")),
        *(
            (unclear, None)
            for unclear in (
                "{ $.n = 1 }",
                "{ $.n > 0 }",
                '{ $.level != "INFO" }',
                '{ $.level = "W*" }',
                '{ $.level = "INFO" && ($.message = "dry run") }',
                '{ $.level = "INFO" && $.message = "a" || $.message = "b" }',
                "{ $.level IS NULL }",
                '{ $.level = "INFO" ',
            )
        ),
    ],
)
def test_a_filter_pattern_finds_exactly_what_it_says_or_is_refused(
    env: LocalEnv, group: str, pattern: str, found: list[int] | None
) -> None:
    logs = env.emulator.client("logs")

    def search() -> list[str]:
        return [
            event["message"] for event in logs.filter_log_events(logGroupName=group, filterPattern=pattern)["events"]
        ]

    if found is None:
        with pytest.raises(ClientError, match="InvalidParameterException") as refused:
            search()
        assert pattern.strip() in str(refused.value)
    else:
        assert search() == [LINES[number] for number in found]


@pytest.fixture(scope="module")
def interface(env: LocalEnv) -> Iterator[None]:
    """A network interface: moto looks at a filter's name only when there is something to filter."""
    ec2 = env.emulator.client("ec2")
    made = ec2.create_network_interface(SubnetId=env.network.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    yield
    ec2.delete_network_interface(NetworkInterfaceId=made)


NAMED = [{"Name": "no-such-filter", "Values": ["x"]}]


@pytest.mark.parametrize(
    ("service", "operation", "given", "code"),
    [
        ("logs", "filter_log_events", {"logStreamNamePrefix": "two"}, "InvalidParameterException"),
        ("logs", "put_metric_filter", {"filterPattern": "[a, b]"}, "InvalidParameterException"),
        ("logs", "put_subscription_filter", {"filterPattern": "%a%"}, "InvalidParameterException"),
        ("logs", "start_query", {"queryString": "filter level in ['ERROR']"}, "MalformedQueryException"),
        ("logs", "start_query", {"queryString": "stats count(*) by @log"}, "MalformedQueryException"),
        ("logs", "start_query", {"queryString": "fields a | sort a desc | dedup a"}, "MalformedQueryException"),
        ("sagemaker", "list_notebook_instances", {"DefaultCodeRepositoryContains": "x"}, "ValidationException"),
        ("sagemaker", "list_notebook_instances", {"AdditionalCodeRepositoryEquals": "x"}, "ValidationException"),
        ("sagemaker", "list_notebook_instances", {"NextToken": "no token of ours"}, "ValidationException"),
        ("ssm", "get_parameters_by_path", {"ParameterFilters": [{"Key": "Type", "Values": ["x"]}]}, "InvalidFilterKey"),
        ("resourcegroupstaggingapi", "get_resources", {"ExcludeCompliantResources": True}, "InvalidParameterException"),
        *(
            ("ec2", operation, {"Filters": NAMED}, "InvalidParameterValue")
            for operation in (
                "describe_managed_prefix_lists",
                "describe_network_interfaces",
                "describe_security_group_rules",
                "describe_security_groups",
                "describe_subnets",
                "describe_vpcs",
            )
        ),
    ],
)
@pytest.mark.usefixtures("interface")
def test_what_would_be_left_out_of_account_is_refused_by_the_services_own_code(
    env: LocalEnv, group: str, service: str, operation: str, given: dict[str, Any], code: str
) -> None:
    needed: dict[str, Any] = {
        "filter_log_events": {"logGroupName": group},
        "put_metric_filter": {
            "logGroupName": group,
            "filterName": "f",
            "metricTransformations": [{"metricName": "m", "metricNamespace": "n", "metricValue": "1"}],
        },
        "put_subscription_filter": {"logGroupName": group, "filterName": "f", "destinationArn": "arn:aws:lambda:x"},
        "start_query": {"logGroupName": group, "startTime": 0, "endTime": 1},
        "get_parameters_by_path": {"Path": "/"},
    }
    with pytest.raises(ClientError) as refused:
        getattr(env.emulator.client(service), operation)(**needed.get(operation, {}), **given)
    assert refused.value.response["Error"]["Code"] == code
