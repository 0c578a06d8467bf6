"""Who calls the API, by the ARN that API Gateway passes (`requestContext.identity.userArn`)."""

from __future__ import annotations

import re

_ROLE_SESSION = re.compile(r"arn:aws[a-z-]*:sts::(\d{12}):assumed-role/([^/]+)/[^/]+")
_USER = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):user/.+")


def role_of_caller(user_arn: str, account: str) -> str | None:
    """Return the role of `account` in `user_arn`; None when it is no session of such a role.

    `arn:<partition>:sts::<account>:assumed-role/<role>/<session>`: the role's path is not in it, and need not be, as no
    two roles of an account have one name, whatever their paths (IAM User Guide, "IAM identifiers").
    """
    found = _ROLE_SESSION.fullmatch(user_arn)
    return found[2] if found and found[1] == account else None


def is_user_of(user_arn: str, account: str) -> bool:
    """Return whether `user_arn` is an IAM user of `account`."""
    found = _USER.fullmatch(user_arn)
    return found is not None and found[1] == account
