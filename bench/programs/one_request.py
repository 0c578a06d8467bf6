"""One botocore request, again and again: what a call to DynamoDB costs with nothing around it."""

from __future__ import annotations

KEY = {"pk": {"S": "notebook"}, "sk": {"S": "demo"}}


def main(operation: str, times: str) -> None:
    """operation: `get_item` or `update_item`. The client is as botocore makes it."""
    import botocore.session

    client = botocore.session.get_session().create_client("dynamodb")
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
