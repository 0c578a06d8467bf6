"""The stand-in for an EC2 Instance Connect Endpoint checks a request as AWS does."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from endpoint.requests import EXPIRES_S, MAX_CLOCK_SKEW_S, SERVICE, Refusal, Tunnel, read_request

HOST = "eice-0123456789abcdef0.a1b2c3d4.ec2-instance-connect-endpoint.eu-west-1.amazonaws.com"
KEYS = {("AKIAEXAMPLE", ""): "secret", ("ASIAEXAMPLE", "token"): "secret"}
ASKED = {"instanceConnectEndpointId": "eice-0123456789abcdef0", "privateIpAddress": "10.0.3.7", "remotePort": "22"}


def secret_of(access_key: str, token: str) -> str | Refusal:
    return KEYS.get((access_key, token)) or Refusal(403, "UnrecognizedClientException", "")


def signed(
    asked: dict[str, str] | None = None,
    *,
    service: str = SERVICE,
    expires: int = EXPIRES_S,
    key: str = "AKIAEXAMPLE",
    secret: str = "secret",
    token: str | None = None,
) -> str:
    """Return a presigned target."""
    url = f"https://{HOST}/openTunnel?{urlencode(ASKED if asked is None else asked)}"
    request = AWSRequest(method="GET", url=url)
    SigV4QueryAuth(Credentials(key, secret, token), service, "eu-west-1", expires=expires).add_auth(request)
    parts = urlsplit(str(request.url))
    return f"{parts.path}?{parts.query}"


def changed(target: str, **values: str) -> str:
    """Return the target with other parameters than those that were signed."""
    return "/openTunnel?" + urlencode({**dict(parse_qsl(urlsplit(target).query)), **values})


def signed_at(target: str) -> float:
    import calendar
    import time

    return calendar.timegm(time.strptime(dict(parse_qsl(urlsplit(target).query))["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))


def answer(target: str, *, later: float = 0, host: str = HOST) -> Tunnel | Refusal:
    return read_request(target, host, (signed_at(target) if "X-Amz-Date" in target else 0) + later, secret_of)


def test_a_request_that_is_in_order() -> None:
    expected = Tunnel("eice-0123456789abcdef0", "10.0.3.7", 22, None, "AKIAEXAMPLE", "eu-west-1")
    assert answer(signed()) == expected


def test_a_session_is_known_by_its_token() -> None:
    assert isinstance(answer(signed(key="ASIAEXAMPLE", token="token")), Tunnel)
    assert isinstance(answer(signed(key="ASIAEXAMPLE", token="another")), Refusal)


@pytest.mark.parametrize("port", ["22", "3389"])
@pytest.mark.parametrize(("asked", "seconds"), [({}, None), ({"maxTunnelDuration": "600"}, 600)])
def test_what_may_be_asked_for(port: str, asked: dict[str, str], seconds: int | None) -> None:
    found = answer(signed({**ASKED, "remotePort": port, **asked}))
    assert isinstance(found, Tunnel)
    assert (found.port, found.seconds) == (int(port), seconds)


REFUSED: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "another port": (signed({**ASKED, "remotePort": "5432"}), {}, 400, "Specify either 22 or 3389"),
    "no port": (signed({name: ASKED[name] for name in ASKED if name != "remotePort"}), {}, 400, "missing"),
    "no address": (signed({**ASKED, "privateIpAddress": "notebook"}), {}, 400, "not valid"),
    "longer than an hour": (signed({**ASKED, "maxTunnelDuration": "3601"}), {}, 400, "MaxTunnelDuration"),
    "no seconds": (signed({**ASKED, "maxTunnelDuration": "0"}), {}, 400, "MaxTunnelDuration"),
    "not signed": (f"/openTunnel?{urlencode(ASKED)}", {}, 403, "Missing Authentication Token"),
    "another secret": (signed(secret="guess"), {}, 403, "signature we calculated"),
    "an unknown key": (signed(key="AKIAUNKNOWN"), {}, 403, ""),
    "another service": (signed(service="execute-api"), {}, 403, "scoped to correct service"),
    "another host": (signed(), {"host": "other.amazonaws.com"}, 403, "signature we calculated"),
    "changed after it was signed": (changed(signed(), privateIpAddress="10.0.3.8"), {}, 403, "signature we calculated"),
    "expired": (signed(), {"later": EXPIRES_S + 1}, 403, "expired"),
    "too early": (signed(), {"later": -MAX_CLOCK_SKEW_S - 1}, 403, "not yet valid"),
    "given twice": (signed() + "&remotePort=3389", {}, 400, "twice"),
    "another path": (signed().replace("/openTunnel", "/"), {}, 404, ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    target, circumstances, status, message = REFUSED[case]
    refusal = answer(target, **circumstances)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert message in refusal.message


@pytest.mark.parametrize("later", [-MAX_CLOCK_SKEW_S, 0, EXPIRES_S])
def test_a_signature_is_good_for_a_minute(later: float) -> None:
    assert isinstance(answer(signed(), later=later), Tunnel)
