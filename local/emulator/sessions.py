"""Who makes a request, and sessions of the notebooks' roles, as ministack's STS knows them."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, request_scope
from ministack.services import sts

from emulator.place import ACCOUNT, REGION
from notebook.machine import Credentials

SESSION_S = 6 * 3600
"""Seconds for which a notebook's credentials are good."""


def caller(key: str) -> str:
    """The ARN of the principal with this access key; empty without one."""
    with request_scope(ACCOUNT, REGION):
        return str((iam_evaluator.resolve_caller_identity(key) or {}).get("userArn", ""))


def user_identity(key: str) -> dict[str, Any]:
    """The caller as CloudTrail writes it (CloudTrail User Guide, userIdentity element). Within a request's scope."""
    arn = str((iam_evaluator.resolve_caller_identity(key) or {}).get("userArn", ""))
    account = get_account_id()
    if ":assumed-role/" not in arn:
        return {"type": "IAMUser", "arn": arn, "accountId": account}
    role = arn.split("/")[1]
    issuer = {"type": "Role", "arn": f"arn:aws:iam::{account}:role/{role}", "userName": role}
    return {"type": "AssumedRole", "arn": arn, "accountId": account, "sessionContext": {"sessionIssuer": issuer}}


def of_role(role_arn: str) -> Credentials:
    """A session of a notebook's role, as SageMaker gives it to the instance."""
    role = role_arn.rpartition("/")[2]
    made = Credentials(
        key=f"ASIA{secrets.token_hex(8).upper()}",
        secret=secrets.token_hex(20),
        token=secrets.token_hex(32),
        expires=time.time() + SESSION_S,
    )
    with request_scope(ACCOUNT, REGION):
        sts.register_session(
            made.key,
            {
                "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/SageMaker",
                "UserId": f"{role}:SageMaker",
                "SecretAccessKey": made.secret,
                "SessionToken": made.token,
                "Expiration": made.expires,
            },
        )
    return made
