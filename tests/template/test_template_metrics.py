"""What the dashboard and the alarms look at exists: our own metrics are emitted, AWS's are among those documented."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.stack import PROJECT, Stack, source

NAMESPACE = "notebook-ssh"

OF_AWS = {
    # Each from the service's page "… metrics" in its developer guide.
    "AWS/SQS": {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible"},
    "AWS/Lambda": {"Errors", "Throttles", "Duration", "Invocations"},
    "AWS/ApiGateway": {"Count", "4XXError", "5XXError", "Latency"},
    "AWS/DynamoDB": {"ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"},
    "AWS/Logs": {"IncomingBytes"},
}


def deployed() -> list[Path]:
    """The modules that run in Lambda."""
    return [path for root in ("functions", "layers/core/notebook_ssh") for path in (PROJECT / root).rglob("*.py")]


def emitted() -> set[str]:
    """The names of the metrics that the functions print."""
    names: set[str] = set()
    for path in deployed():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="_count"), args=[ast.Constant(value=str(name)), _]):
                    names.add(name)
    return names


def widgets() -> list[dict[str, Any]]:
    (dashboard,) = Stack().of_type("AWS::CloudWatch::Dashboard").values()
    return list(json.loads(dashboard["DashboardBody"])["widgets"])


def shown() -> set[tuple[str, str]]:
    """(namespace, metric) of every line of every graph; `...` repeats what the line above says (dashboard syntax)."""
    found: set[tuple[str, str]] = set()
    for widget in widgets():
        for line in widget["properties"].get("metrics", []):
            if line[0] != "...":
                found.add((line[0], line[1]))
    return found


def watched() -> set[tuple[str, str]]:
    alarms = Stack().of_type("AWS::CloudWatch::Alarm").values()
    return {(alarm["Namespace"], alarm["MetricName"]) for alarm in alarms}


def test_every_metric_in_use_is_emitted_and_every_emitted_one_is_in_use() -> None:
    looked_at = {name for namespace, name in shown() | watched() if namespace == NAMESPACE}
    assert looked_at == emitted()


def test_every_metric_of_aws_in_use_is_documented() -> None:
    for namespace, name in shown() | watched():
        assert namespace == NAMESPACE or name in OF_AWS[namespace], (namespace, name)


def test_our_metrics_are_used_under_the_dimensions_that_they_are_emitted_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from notebook_ssh.adapters import metrics as emitted
    from notebook_ssh.model.fleet_stats import fleet_stats

    monkeypatch.setattr(emitted.metrics, "service", "notebook-ssh")
    emitted.count_fleet(fleet_stats([], 0, 300))
    emitted.count_needs_admin(0)  # billed for the hours in which it is sent
    emitted.count_needs_admin(1)
    emitted.metrics.flush_metrics()
    blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    names = set()
    for blob in blobs:
        (metrics,) = blob["_aws"]["CloudWatchMetrics"]
        assert metrics["Namespace"] == NAMESPACE
        assert metrics["Dimensions"] == [["service"]]
        assert blob["service"] == "notebook-ssh"
        names |= {metric["Name"] for metric in metrics["Metrics"]}
    assert names == {"Requested", "Connected", "Stale", "Failing", "TokenRefused", "NeedsAdmin"}
    for name, alarm in Stack().of_type("AWS::CloudWatch::Alarm").items():
        if alarm["Namespace"] == NAMESPACE:
            assert alarm["Dimensions"] == [{"Name": "service", "Value": "notebook-ssh"}], name


def test_no_metric_has_a_dimension_of_its_own() -> None:
    """Each combination costs by the month: a metric for each notebook would cost more than all else together."""
    for path in deployed():
        assert "add_dimension" not in path.read_text("utf-8"), path


def test_the_dashboard_fits_the_grid() -> None:
    for widget in widgets():
        assert widget["x"] + widget["width"] <= 24, widget
    taken = [
        (row, column)
        for widget in widgets()
        for row in range(widget["y"], widget["y"] + widget["height"])
        for column in range(widget["x"], widget["x"] + widget["width"])
    ]
    assert len(taken) == len(set(taken))


def test_every_alarm_notifies_the_topic_of_its_start_and_end() -> None:
    alarms = Stack().of_type("AWS::CloudWatch::Alarm")
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [Stack().arn("AlarmTopic")], name
        assert alarm["AlarmDescription"], name
    assert alarms["SweepAlarm"]["TreatMissingData"] == "breaching"


def test_every_dead_letter_queue_has_its_alarm() -> None:
    watched_queues = {
        alarm["Dimensions"][0]["Value"]
        for alarm in Stack().of_type("AWS::CloudWatch::Alarm").values()
        if alarm["MetricName"] == "ApproximateNumberOfMessagesVisible"
    }
    queues = {name for name in Stack().of_type("AWS::SQS::Queue") if name.endswith("DeadLetterQueue")}
    assert watched_queues == {f"<{name}.QueueName>" for name in queues}


def test_mail_is_sent_to_the_configured_address() -> None:
    (topic,) = Stack(AlarmEmail="admin@example.com").of_type("AWS::SNS::Topic").values()
    assert topic["Subscription"] == [{"Protocol": "email", "Endpoint": "admin@example.com"}]
    (topic,) = Stack().of_type("AWS::SNS::Topic").values()
    assert "Subscription" not in topic


def test_without_a_dashboard_there_are_no_alarms_and_no_saved_queries() -> None:
    stack = Stack(Dashboard="false")
    for kind in ("AWS::CloudWatch::Dashboard", "AWS::CloudWatch::Alarm", "AWS::Logs::QueryDefinition"):
        assert not stack.of_type(kind)
        assert Stack().of_type(kind)


def test_all_alarms_are_there_without_the_dashboard_that_costs_more_than_they_do() -> None:
    stack = Stack(Dashboard="alarms")
    assert stack.of_type("AWS::CloudWatch::Alarm") == Stack().of_type("AWS::CloudWatch::Alarm")
    assert not stack.of_type("AWS::CloudWatch::Dashboard")


def test_saved_queries_and_alarms_name_documents_that_exist() -> None:
    named = set(re.findall(r"docs/[a-z-]+\.md", json.dumps(source())))
    assert named
    assert not [name for name in named if not (PROJECT / name).is_file()]


OF_LAMBDA = {"@timestamp", "@message", "@log", "@type", "@duration", "@initDuration", "@maxMemoryUsed"}
"""Fields that Logs Insights finds in Lambda's own lines (CloudWatch Logs user guide, "Supported logs")."""
OF_POWERTOOLS = {"level", "message", "exception"}
"""Fields of every line of the Logger."""
WORDS = {"fields", "filter", "stats", "sort", "limit", "by", "as", "asc", "desc", "and", "or", "not", "in", "like"}
CALLS = {"ispresent", "latest", "count", "pct", "max"}


def logged() -> set[str]:
    """The names that the code gives to what it logs: by `extra`, and by the Logger's own means."""
    names: set[str] = set()
    for path in deployed():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.keyword(arg="extra", value=ast.Dict(keys=keys)):
                    names |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
                case ast.Call(func=ast.Attribute(attr="append_keys" | "append_context_keys"), keywords=keywords):
                    names |= {keyword.arg for keyword in keywords if keyword.arg}
    return names


def queries() -> dict[str, str]:
    """The saved queries and those of the dashboard, by name."""
    saved = {name: query["QueryString"] for name, query in Stack().of_type("AWS::Logs::QueryDefinition").items()}
    shown = {
        each["properties"]["title"]: each["properties"].get("query", "")
        for each in widgets()
        if "title" in each["properties"]
    }
    return saved | {name: re.sub(r"SOURCE '[^']*' \| ", "", query) for name, query in shown.items() if query}


def fields_named(query: str) -> set[str]:
    """What a query takes for fields: no words of the language, no names that it gives itself, no texts."""
    bare = re.sub(r"'[^']*'|/[^/\n]*/", "", query)
    given = set(re.findall(r"\bas (\w+)", bare))
    return set(re.findall(r"@?[A-Za-z_]\w*", bare)) - WORDS - CALLS - given


@pytest.mark.parametrize("name", queries())
def test_every_field_that_a_query_names_is_logged(name: str) -> None:
    assert fields_named(queries()[name]) <= logged() | OF_LAMBDA | OF_POWERTOOLS


def messages_logged() -> set[str]:
    """The texts that the code logs as they stand."""
    texts: set[str] = set()
    for path in deployed():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger")), args=[ast.Constant(value=str(text)), *_]
                ):
                    texts.add(text)
    return texts


@pytest.mark.parametrize("name", queries())
def test_every_message_that_a_query_names_is_logged(name: str) -> None:
    comparisons = re.findall(r"message (?:=|not in|in) (\[[^]]*\]|'[^']*')", queries()[name])
    named = {text for each in comparisons for text in re.findall(r"'([^']*)'", each)}
    assert named <= messages_logged()


def test_one_change_is_followed_through_the_logs_of_every_function() -> None:
    followed = Stack().of_type("AWS::Logs::QueryDefinition")["QueryOneChange"]["LogGroupNames"]
    functions = Stack().of_type("AWS::Lambda::Function").values()
    assert sorted(followed) == sorted(function["LoggingConfig"]["LogGroup"] for function in functions)


def test_a_field_that_is_never_logged_would_be_found() -> None:
    assert "colour" in fields_named("fields @timestamp, colour | filter level = 'x'") - logged() - OF_LAMBDA
