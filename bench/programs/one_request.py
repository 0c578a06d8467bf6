"""One boto3 request, again and again: what a call to DynamoDB costs with nothing around it."""

from __future__ import annotations

KEY = {"pk": {"S": "notebook"}, "sk": {"S": "demo"}}


def main(operation: str, times: str) -> None:
    """operation: `get_item` or `update_item`. The client is as boto3 makes it."""
    import boto3

    client = boto3.client("dynamodb")
    for turn in range(int(times)):
        if operation == "get_item":
            client.get_item(TableName="records", Key=KEY)
        else:
            client.update_item(
                TableName="records",
                Key=KEY,
                UpdateExpression="SET #sequence = :sequence",
                ConditionExpression="#sequence < :sequence",
                ExpressionAttributeNames={"#sequence": "sequence"},
                ExpressionAttributeValues={":sequence": {"N": str(turn)}},
                ReturnValues="ALL_NEW",
            )
