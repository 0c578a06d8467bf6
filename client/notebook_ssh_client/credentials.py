"""The user's AWS credentials: loads them, and knows how each kind of them is renewed.

Keys in the environment are used without botocore's session, whose import is a fifth of what a lookup takes.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ProfileNotFound,
    SSOError,
    SSOTokenLoadError,
    TokenRetrievalError,
)
from botocore.utils import JSONFileCache

from notebook_ssh_client import messages
from notebook_ssh_client.errors import EXIT_ACCESS_DENIED, EXIT_UNREACHABLE, CliError

if TYPE_CHECKING:
    import botocore.session
    from botocore.credentials import ReadOnlyCredentials

# Where the AWS CLI caches the credentials of roles; shared, so that the user types an MFA code only once.
AWS_CLI_CACHE_DIR = os.path.join("~", ".aws", "cli", "cache")

# A signature is valid for five minutes before and after its time (API Gateway, Signature Version 4).
MAX_CLOCK_SKEW_S = 270


class AccessKey(NamedTuple):
    """An access key, and the token that belongs to it if it is temporary: botocore's ReadOnlyCredentials, not imported."""

    access_key: str
    secret_key: str
    token: str | None


def environment_key(profile: str | None, environ: Mapping[str, str]) -> AccessKey | None:
    """Return the access key in the environment variables, or None if only botocore's session can tell what to use.

    The names are those of the AWS SDKs and tools reference guide, "AWS access keys". profile: of the stack's settings,
    goes before the environment. A key that says when it expires is left to botocore, which checks that.
    """
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if profile is not None or not key or not secret or "AWS_CREDENTIAL_EXPIRATION" in environ:
        return None
    return AccessKey(key, secret, environ.get("AWS_SESSION_TOKEN") or environ.get("AWS_SECURITY_TOKEN") or None)


def config_names_authorities(environ: Mapping[str, str]) -> bool:
    """Return whether the AWS configuration file may set `ca_bundle`; True if the file cannot be read."""
    path = os.path.expanduser(environ.get("AWS_CONFIG_FILE") or os.path.join("~", ".aws", "config"))
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "ca_bundle" in file.read()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def authorities(
    profile: str | None, environ: Mapping[str, str], session: Callable[[], botocore.session.Session]
) -> str | None:
    """Return the file with the certificate authorities that the user names, as for the AWS CLI; None if there is none.

    session: called if only botocore can tell. Raises CliError if the file does not exist.
    """
    named = environ.get("AWS_CA_BUNDLE") or None
    if profile is not None or config_names_authorities(environ):
        named = session().get_config_variable("ca_bundle") or None
    if named is not None and not os.path.exists(named):
        raise CliError(
            f"there is no file {named}, which AWS_CA_BUNDLE or ca_bundle in ~/.aws/config names: correct it, or "
            "remove it to trust the usual authorities",
            EXIT_UNREACHABLE,
        )
    return named


def create_session(profile: str | None, region: str | None = None, *, may_ask: bool = True) -> botocore.session.Session:
    """Create a botocore session for `profile` that shares the AWS CLI's cache of role credentials.

    region: where roles are assumed if the profile has no region. may_ask: whether the user may be asked for an MFA code.
    Raises CliError if the profile does not exist.
    """
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        if region and not session.get_config_variable("region"):
            session.set_config_variable("region", region)
        resolver = session.get_component("credential_provider")
    except ProfileNotFound as error:
        name = profile or os.environ.get("AWS_PROFILE")
        others = ", ".join(sorted(session.available_profiles)) or "none"
        raise CliError(
            f"AWS profile {name!r} does not exist in ~/.aws/config (there are: {others}); "
            f"run: notebook-ssh setup --profile NAME, or create it: aws configure sso --profile {name}",
            EXIT_ACCESS_DENIED,
        ) from error
    cache = JSONFileCache(os.path.expanduser(AWS_CLI_CACHE_DIR))
    for provider in ("assume-role", "assume-role-with-web-identity", "sso"):
        resolver.get_provider(provider).cache = cache
    # No public way to set it. Without this attribute, getpass asks the input that `take_standard_input` left: none.
    resolver.get_provider("assume-role")._prompter = _ask if may_ask else _ask_nothing
    return session


def load_credentials(session: botocore.session.Session, profile: str | None) -> ReadOnlyCredentials:
    """Return valid credentials, frozen for one signature. Raises CliError with what to do."""
    try:
        credentials = session.get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials else None
    except EOFError as error:
        raise CliError(
            f"{identity(profile)} asks for an MFA code, which cannot be typed here; "
            "run in a terminal: notebook-ssh list",
            EXIT_ACCESS_DENIED,
        ) from error
    except (BotoCoreError, ClientError) as error:
        raise _loading_error(error, session, profile) from error
    if frozen is None:
        where = f"in profile {profile_name(profile)}" if profile_name(profile) else "on this machine"
        raise CliError(
            f"no AWS credentials found {where}; run: aws configure sso{_option(profile_name(profile))}, or choose "
            "a profile: notebook-ssh setup --profile NAME",
            EXIT_ACCESS_DENIED,
        )
    messages.explain(
        f"credentials: {getattr(credentials, 'method', 'unknown')}, profile {profile_name(profile) or '-'}"
    )
    return frozen


def identity(profile: str | None) -> str:
    """Return how to call the credentials in a message."""
    name = profile_name(profile)
    return f"profile {name}" if name else "your AWS identity"


def profile_name(profile: str | None) -> str | None:
    """Return the profile in use, or None for the default credentials."""
    return profile or os.environ.get("AWS_PROFILE") or None


def remedy(session: botocore.session.Session, profile: str | None) -> str:
    """Return what to do about credentials that AWS rejects."""
    if profile is None and os.environ.get("AWS_ACCESS_KEY_ID"):
        if os.environ.get("AWS_SESSION_TOKEN"):
            return (
                "set new temporary credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the "
                "environment, or unset them to use a profile"
            )
        return "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
    return _profile_remedy(session, profile_name(profile) or "default", set())


def clock_skew(headers: Mapping[str, Any], now: float) -> float:
    """Return by how many seconds the sender of these HTTP headers is ahead of `now`; 0 if they do not tell."""
    from email.utils import parsedate_to_datetime

    dates = [value for name, value in headers.items() if name.lower() == "date"]
    try:
        return parsedate_to_datetime(str(dates[0])).timestamp() - now
    except (IndexError, TypeError, ValueError):
        return 0.0


def clock_error(skew_s: float) -> CliError:
    """Return the error for a clock that is wrong by `skew_s`, positive if this machine's is behind."""
    direction = "behind" if skew_s > 0 else "ahead of"
    return CliError(
        f"the clock of this machine is {format_duration(abs(skew_s))} {direction} AWS's, which rejects every request; "
        "set the clock, for example by switching on time synchronization",
        EXIT_ACCESS_DENIED,
    )


def format_duration(seconds: float) -> str:
    """Return a duration in its largest unit: `40 s`, `12 min`, `3 h`, `2 d`."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def _ask(prompt: str) -> str:
    """Ask on the terminal. Raises EOFError where there is none to ask on."""
    terminal = messages.open_terminal()
    if terminal is not None:
        os.close(terminal)
    elif sys.stdin is None or sys.stdin.closed:
        raise EOFError
    return getpass.getpass(prompt)


def _ask_nothing(_: str) -> str:
    raise EOFError


def _option(name: str | None) -> str:
    return f" --profile {name}" if name else ""


def _profile_remedy(session: botocore.session.Session, name: str, visited: set[str]) -> str:
    """Return how the credentials in profile `name` are renewed; of a role, those that it is assumed with."""
    values: dict[str, Any] = session.full_config.get("profiles", {}).get(name, {})
    option = _option(None if name == "default" else name)
    source = str(values.get("source_profile", ""))
    if "role_arn" in values and source and source not in visited | {name}:
        return _profile_remedy(session, source, visited | {name})
    if "web_identity_token_file" in values:
        return f"check web_identity_token_file of profile {name}"
    if "sso_session" in values or "sso_start_url" in values:
        return f"run: aws sso login{option}"
    if "login_session" in values:
        return f"run: aws login{option}"
    if "credential_process" in values:
        return f"run the credential_process of profile {name} in a terminal to see why"
    if "aws_session_token" in values:
        return f"store new temporary credentials in profile {name}"
    if "aws_access_key_id" in values:
        return f"run: aws configure{option}"
    return "check the role of this machine"


def _loading_error(
    error: BotoCoreError | ClientError, session: botocore.session.Session, profile: str | None
) -> CliError:
    name = profile_name(profile) or "default"
    values: dict[str, Any] = session.full_config.get("profiles", {}).get(name, {})
    if isinstance(error, (SSOError, SSOTokenLoadError, TokenRetrievalError)):
        return CliError(
            f"your AWS SSO session has expired or there is none ({error}); {remedy(session, profile)}",
            EXIT_ACCESS_DENIED,
        )
    if isinstance(error, ClientError) and "role_arn" in values:
        details: dict[str, Any] = dict(error.response.get("Error", {}))
        message = str(details.get("Message") or error).rstrip(".")
        if details.get("Code") == "AccessDenied":
            hint = f"check role_arn of profile {name}, and with the role's owner who may assume it"
            return CliError(f"profile {name} may not assume its role ({message}); {hint}", EXIT_ACCESS_DENIED)
        return CliError(
            f"profile {name} could not assume its role ({message}); {remedy(session, profile)}", EXIT_ACCESS_DENIED
        )
    return CliError(f"AWS credentials could not be loaded ({error}); {remedy(session, profile)}", EXIT_ACCESS_DENIED)
