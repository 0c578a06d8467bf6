"""Find a stack's API by CloudFormation, once, at set-up: the only AWS service that this client calls."""

from __future__ import annotations

import os
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh_client.api import credentials, session
from notebook_ssh_client.failures import FAILED, NO_ANSWER, NOT_ALLOWED, USAGE, Failure
from notebook_ssh_client.stacks import Stack

OUTPUT = "ApiUrl"
"""The output of template.yaml that holds the API's address."""

DEFAULT_NAME = "notebook-ssh"


def discover(name: str | None, region: str | None, profile: str | None, api: str | None) -> Stack:
    """The stack called `name` in `region`, at `api` or where CloudFormation says it is."""
    # Programs that are started from a desktop don't see what a terminal's environment says.
    profile = profile or os.environ.get("AWS_PROFILE")
    made = session(profile)
    name = name or DEFAULT_NAME
    # AWS_REGION as all AWS tools but botocore read it: before AWS_DEFAULT_REGION and the profile.
    region = region or _region_in(api) or os.environ.get("AWS_REGION") or made.get_config_variable("region")
    if not region:
        raise Failure("no AWS region is set; say it with --region, for example --region eu-west-1", USAGE)
    if api is None:
        credentials(made, profile)
        api = _output(made, name, region)
    if not api.startswith(("https://", "http://")):
        raise Failure(f"{api!r} is not an address; it begins with https:// and ends with the stage, …/v1", USAGE)
    return Stack(label=name, name=name, region=region, api=api.rstrip("/"), profile=profile)


def _region_in(api: str | None) -> str | None:
    """The region in API Gateway's own host names, `<id>.execute-api.<region>.amazonaws.com`."""
    parts = (api or "").split(".")
    return parts[2] if len(parts) > 4 and parts[1] == "execute-api" else None


def _output(made: botocore.session.Session, name: str, region: str) -> str:
    instead = "ask its admin for the API's address and run: notebook-ssh setup --api ADDRESS"
    client: Any = made.create_client(
        "cloudformation",
        region_name=region,
        config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}),
    )
    try:
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        told = error.response.get("Error", {})
        if told.get("Code") == "ValidationError":
            raise Failure(
                f"there is no stack called {name} in {region}; say --stack and --region, or {instead}", USAGE
            ) from error
        raise Failure(
            f"CloudFormation does not describe {name}: {told.get('Message')}; {instead}", NOT_ALLOWED
        ) from error
    except BotoCoreError as error:
        raise Failure(f"CloudFormation in {region} cannot be reached ({error}); {instead}", NO_ANSWER) from error
    for output in stack.get("Outputs", []):
        if output["OutputKey"] == OUTPUT:
            return str(output["OutputValue"])
    raise Failure(
        f"stack {name} in {region} has no output {OUTPUT}: it is not a notebook-ssh stack, or not ready", FAILED
    )
