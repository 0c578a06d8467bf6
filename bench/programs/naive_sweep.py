"""A sweep as one writes it first: each notebook described, its tags listed, its record read, one after the other."""

from __future__ import annotations


def main() -> None:
    """Over the account that the stand-in plays."""
    import boto3

    sagemaker, dynamodb = boto3.client("sagemaker"), boto3.client("dynamodb")
    for page in sagemaker.get_paginator("list_notebook_instances").paginate():
        for line in page["NotebookInstances"]:
            sagemaker.describe_notebook_instance(NotebookInstanceName=line["NotebookInstanceName"])
            sagemaker.list_tags(ResourceArn=line["NotebookInstanceArn"])
            dynamodb.get_item(
                TableName="records", Key={"pk": {"S": "notebook"}, "sk": {"S": line["NotebookInstanceName"]}}
            )
