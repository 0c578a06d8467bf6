"""The lookup as its idioms have it: Powertools' resolver, Logger and Metrics, and a boto3 table resource.

The same answer as `GET /notebooks/{name}/ssh` of ours, less the checks of its status.
"""

from __future__ import annotations

import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.metrics import MetricUnit

logger = Logger()
metrics = Metrics(namespace="notebook-ssh")
app = APIGatewayRestResolver()
table = boto3.resource("dynamodb").Table(os.environ["TABLE_NAME"])


@app.get("/notebooks/<name>/ssh")
def ssh(name: str) -> Response[str]:
    """The command to type."""
    item = table.get_item(Key={"pk": "notebook", "sk": name.lower()}).get("Item")
    if item is None:
        raise NotFoundError(f"no notebook {name}")
    metrics.add_metric(name="Lookups", unit=MetricUnit.Count, value=1)
    return Response(200, "text/plain", f"ssh -p {item['report']['port']} ec2-user@{item['report']['host']}\n")


@metrics.log_metrics
def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """An API Gateway proxy event → its answer."""
    return app.resolve(event, context)


def main(times: str) -> None:
    """times: how often it is asked."""
    for _ in range(int(times)):
        event = {
            "resource": "/notebooks/{name}/ssh",
            "path": "/notebooks/demo/ssh",
            "httpMethod": "GET",
            "headers": {"Accept": "*/*"},
            "pathParameters": {"name": "demo"},
            "requestContext": {"requestId": "1", "path": "/v1/notebooks/demo/ssh", "stage": "v1"},
            "body": None,
        }
        answer = handle(event, None)
        if answer["statusCode"] != 200:
            raise SystemExit(f"it answered {answer}")
