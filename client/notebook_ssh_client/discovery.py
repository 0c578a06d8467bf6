"""Finds a stack's API URL through CloudFormation at `setup`, the only AWS service that the client calls."""

from __future__ import annotations

import os
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh_client.credentials import create_session, load_credentials
from notebook_ssh_client.errors import EXIT_ACCESS_DENIED, EXIT_FAILURE, EXIT_UNREACHABLE, EXIT_USAGE, CliError
from notebook_ssh_client.settings import Stack, require_private_url

# The output of template.yaml that holds the API's URL.
API_URL_OUTPUT = "ApiUrl"

DEFAULT_STACK_NAME = "notebook-ssh"


def discover_stack(name: str | None, region: str | None, profile: str | None, api_url: str | None) -> Stack:
    """Return the stack `name` in `region`, with `api_url` or the URL in its outputs. Raises CliError."""
    # Programs that a desktop starts do not see a terminal's environment variables, so the profile is stored.
    profile = profile or os.environ.get("AWS_PROFILE")
    session = create_session(profile, region)
    name = name or DEFAULT_STACK_NAME
    # AWS_REGION as every AWS tool but botocore reads it: before AWS_DEFAULT_REGION and the profile.
    region = region or _region_in_url(api_url) or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region:
        raise CliError("no AWS region is configured; set --region, for example --region eu-west-1", EXIT_USAGE)
    if api_url is None:
        load_credentials(session, profile)
        api_url = _read_api_url(session, name, region)
    require_private_url(api_url)
    return Stack(label=name, name=name, region=region, api_url=api_url.rstrip("/"), profile=profile)


def _region_in_url(api_url: str | None) -> str | None:
    """Return the region in an API Gateway host name, `<id>.execute-api.<region>.amazonaws.com`."""
    parts = (api_url or "").split(".")
    return parts[2] if len(parts) > 4 and parts[1] == "execute-api" else None


def _read_api_url(session: botocore.session.Session, name: str, region: str) -> str:
    workaround = "ask the stack's admin for the API URL and run: notebook-ssh setup --api URL"
    client: Any = session.create_client(
        "cloudformation",
        region_name=region,
        config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}),
    )
    try:
        stack = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        details = error.response.get("Error", {})
        if details.get("Code") == "ValidationError":
            raise CliError(
                f"stack {name} does not exist in {region}; set --stack and --region, or {workaround}", EXIT_USAGE
            ) from error
        raise CliError(
            f"not allowed to read stack {name} in {region} ({details.get('Message')}); {workaround}",
            EXIT_ACCESS_DENIED,
        ) from error
    except BotoCoreError as error:
        raise CliError(f"cannot reach CloudFormation in {region} ({error}); {workaround}", EXIT_UNREACHABLE) from error
    for output in stack.get("Outputs", []):
        if output["OutputKey"] == API_URL_OUTPUT:
            return str(output["OutputValue"])
    raise CliError(
        f"stack {name} in {region} has no output {API_URL_OUTPUT}: it is not a notebook-ssh stack, or its deployment "
        "has not finished; check --stack and --region",
        EXIT_FAILURE,
    )
