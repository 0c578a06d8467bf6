"""Reads the notebook's own tags from SageMaker: the child `list-tags`, the only code here that needs botocore."""

from __future__ import annotations

import json
import sys
from typing import Any

from agent import REGION
from worker.model import Json


def list_tags(request: Json) -> None:
    """Print the tags of the notebook `arn`, as SageMaker returns them: the fallback without the stack."""
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        sys.exit(3)
    config = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 1})
    try:
        client: Any = botocore.session.Session().create_client("sagemaker", REGION, config=config)
        tags = client.list_tags(ResourceArn=request["arn"])["Tags"]
        print(json.dumps({"tags": {tag["Key"]: tag["Value"] for tag in tags}}))
    except (BotoCoreError, ClientError) as error:
        print(json.dumps({"text": repr(error)}))
