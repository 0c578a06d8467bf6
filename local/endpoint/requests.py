"""What a client asks an EC2 Instance Connect Endpoint for, checked as AWS checks it: a presigned OpenTunnel.

Two refusals of the real service are public, word for word as the AWS CLI prints them: that of another port, and that of a
caller whose policies do not allow it. UNCONFIRMED(endpoint-refusals): all others, and the HTTP status of each.
"""

from __future__ import annotations

import calendar
import hmac
import ipaddress
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union
from urllib.parse import parse_qs, urlencode, urlsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

SERVICE = "ec2-instance-connect"
PORTS = (22, 3389)
EXPIRES_S = 60
"""Seconds for which AWS's own client presigns a request."""
MAX_EXPIRES_S = 7 * 24 * 3600
"""Seconds for which a presigned request may be good (IAM User Guide, "Create a signed AWS API request")."""
MAX_CLOCK_SKEW_S = 300
LONGEST_S = 3600
"""Seconds that a tunnel may last (EC2 User Guide, "EC2 Instance Connect Endpoint quotas")."""

SIGNED = "X-Amz-Signature"


@dataclass(frozen=True)
class Tunnel:
    """A tunnel that a caller may sign for: whether a policy allows it is yet to be decided."""

    endpoint: str
    """Its id."""
    private_ip: str
    port: int
    seconds: int | None
    """How long it may last, if the client says so."""
    access_key: str
    region: str


@dataclass(frozen=True)
class Refusal:
    """An HTTP response in place of a tunnel: `{"ErrorCode", "Message"}`."""

    status: int
    code: str
    message: str


SecretOf = Callable[[str, str], Union[str, Refusal]]
"""Returns the secret key of an access key, given with its session token (empty: none), or why there is none."""

WRONG_PORT = Refusal(
    400,
    "InvalidParameter",
    "The specified RemotePort is not valid. Specify either 22 or 3389 as the RemotePort and retry your request.",
)
BUSY = Refusal(429, "ThrottlingException", "The endpoint has as many connections as it can have.")
UNKNOWN_ENDPOINT = Refusal(400, "InvalidParameter", "The specified InstanceConnectEndpointId is not valid.")


NOT_AUTHORIZED = "AccessDeniedException"


def not_authorized(caller: str, resource: str, reason: str = "") -> Refusal:
    """The refusal of a caller, an ARN, whose policies do not allow OpenTunnel on the endpoint `resource`."""
    message = f"User: {caller} is not authorized to perform: {SERVICE}:OpenTunnel on resource: {resource}{reason}"
    return Refusal(403, NOT_AUTHORIZED, message)


def read_request(target: str, host: str, now: float, secret_of: SecretOf) -> Tunnel | Refusal:
    """Return the tunnel that the request for `target` asks for. host: its header Host. now: epoch seconds."""
    path, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
    if path != "/openTunnel":
        return Refusal(404, "UnknownOperationException", "")
    if any(len(values) != 1 for values in query.values()):
        return Refusal(400, "InvalidParameter", "A parameter was given twice.")
    given = {name: values[0] for name, values in query.items()}
    signer = _check_signature(given, host, now, secret_of)
    return signer if isinstance(signer, Refusal) else _tunnel(given, *signer)


def _check_signature(given: Mapping[str, str], host: str, now: float, secret_of: SecretOf) -> tuple[str, str] | Refusal:
    """Return access key and region of a valid signature (IAM User Guide, "Signature Version 4", query parameters)."""
    try:
        access_key, day, region, service, ending = given["X-Amz-Credential"].split("/")
        signed_at = calendar.timegm(time.strptime(given["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        expires, signature, headers = int(given["X-Amz-Expires"]), given[SIGNED], given["X-Amz-SignedHeaders"]
        algorithm = given["X-Amz-Algorithm"]
    except (KeyError, ValueError):
        return Refusal(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    expected = (given["X-Amz-Date"][:8], SERVICE, "aws4_request", "host", "AWS4-HMAC-SHA256")
    if (day, service, ending, headers, algorithm) != expected or not 0 < expires <= MAX_EXPIRES_S:
        return Refusal(403, "InvalidSignatureException", "Credential should be scoped to correct service.")
    if not signed_at - MAX_CLOCK_SKEW_S <= now <= signed_at + expires:
        return Refusal(403, "InvalidSignatureException", "Signature expired or not yet valid.")
    secret = secret_of(access_key, given.get("X-Amz-Security-Token", ""))
    if isinstance(secret, Refusal):
        return secret
    if not hmac.compare_digest(_signature(given, host, Credentials(access_key, secret), region), signature):
        return Refusal(
            403,
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )
    return access_key, region


def _signature(given: Mapping[str, str], host: str, credentials: Credentials, region: str) -> str:
    query = urlencode({name: value for name, value in given.items() if name != SIGNED})
    request = AWSRequest(method="GET", url=f"https://{host}/openTunnel?{query}")
    request.context["timestamp"] = given["X-Amz-Date"]
    signer: Any = SigV4QueryAuth(credentials, SERVICE, region)
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def _tunnel(given: Mapping[str, str], access_key: str, region: str) -> Tunnel | Refusal:
    try:
        port = int(given["remotePort"])
        private_ip = str(ipaddress.ip_address(given["privateIpAddress"]))
        seconds = int(given["maxTunnelDuration"]) if "maxTunnelDuration" in given else None
        endpoint = given["instanceConnectEndpointId"]
    except (KeyError, ValueError):
        return Refusal(400, "InvalidParameter", "A parameter is missing or not valid.")
    if port not in PORTS:
        return WRONG_PORT
    if seconds is not None and not 0 < seconds <= LONGEST_S:
        return Refusal(400, "InvalidParameter", "The specified MaxTunnelDuration is not valid.")
    return Tunnel(endpoint, private_ip, port, seconds, access_key, region)
