"""Reads the notebook's own tags from SageMaker: the child `list-tags`, the only code here that needs botocore."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from agent import HOME, INSTALL_DIR, REGION, StackClient
from worker.model import Json

ENVS_DIR = HOME + "/anaconda3/envs/"
# Which Python of a notebook has botocore is UNCONFIRMED.
PYTHONS = sys.executable, ENVS_DIR + "JupyterSystemEnv/bin/python", ENVS_DIR + "python3/bin/python"


def read_own_tags(client: StackClient) -> dict[str, str] | None:
    """Return the notebook's own tags, read in the first Python that has botocore; None if they cannot be read."""
    for python in filter(os.path.exists, PYTHONS):
        result = client.run_helper(INSTALL_DIR + "worker.py", "list-tags", {"arn": client.arn}, python)
        if not result.get("no_botocore"):
            tags: dict[str, str] | None = result.get("tags")
            return tags
    return None


def list_tags(request: Json) -> None:
    """Print the tags of the notebook `arn`, as SageMaker returns them: the fallback without the stack."""
    # Requests for the role's credentials go through no proxy.
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    os.environ["no_proxy"] = f"{exempt},169.254.169.254,169.254.170.2"
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        print(json.dumps({"no_botocore": True}))
        return
    config = Config(connect_timeout=5, read_timeout=5, retries={"max_attempts": 1})
    try:
        client: Any = botocore.session.Session().create_client("sagemaker", REGION, config=config)
        tags = client.list_tags(ResourceArn=request["arn"])["Tags"]
        print(json.dumps({"tags": {tag["Key"]: tag["Value"] for tag in tags}}))
    except (BotoCoreError, ClientError) as error:
        print(json.dumps({"text": repr(error)}))
