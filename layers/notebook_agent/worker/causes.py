"""Why a report failed: one table of what was seen, the code of it, and the sentence that says what to do.

The codes are those of docs/statuses.md and of the stack (model/problems.py). A report that fails cannot report them:
they are shown in SSH_INSTRUCTIONS and by `ssh-status`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from agent import INSTALL_DIR, StackClient, get_credentials
from worker.model import Problem
from worker.texts import one_line


@dataclass(frozen=True)
class Cause:
    """One row. statuses: the HTTP statuses it is seen with, 0 for none. seen: in the error, or in the API's message."""

    statuses: range
    seen: str
    code: str
    message: str

    def matches(self, status: int, said: str) -> bool:
        """Return whether this is the cause of a status and of what was said with it."""
        return status in self.statuses and bool(re.search(self.seen, said, re.IGNORECASE))


NO_RESPONSE, FORBIDDEN, CLIENT, SERVER, ANY = range(1), range(403, 404), range(400, 500), range(500, 600), range(600)
NO_CREDENTIALS = "api-no-credentials"

# The first that matches counts. `{said}` is what was said, `{status}` the HTTP status.
CAUSES = (
    # What came is no answer of API Gateway's: that is JSON, and with a status of its own.
    Cause(
        ANY,
        r"^\s*<|^unreadable$",
        "api-proxy-page",
        "a web page came in place of the API's answer ({status}): a proxy is in between; let it pass the API's host, "
        "or add that to NO_PROXY in /etc/environment",
    ),
    Cause(
        range(300, 400),
        "",
        "api-proxy-page",
        "the request was redirected ({status}), which the API never does: a proxy is in between; let it pass the API's "
        "host, or add that to NO_PROXY in /etc/environment",
    ),
    Cause(
        NO_RESPONSE,
        r"JSONDecodeError|KeyError|no credentials",
        NO_CREDENTIALS,
        "the notebook's role gives no credentials: see that the role exists in IAM, and that 169.254.169.254 can be "
        "reached from here ({said})",
    ),
    Cause(
        NO_RESPONSE,
        r"CERTIFICATE_VERIFY_FAILED|SSL",
        "api-certificate",
        "the certificate of the stack's API cannot be verified: a proxy that reads TLS needs its authority in the "
        "system's list (update-ca-trust) ({said})",
    ),
    Cause(
        NO_RESPONSE,
        r"Tunnel connection failed",
        "api-proxy-refused",
        "the proxy refuses to connect to the stack's API: allow its host there, or add it to NO_PROXY in "
        "/etc/environment ({said})",
    ),
    Cause(
        NO_RESPONSE,
        r"gaierror|name resolution|Name or service not known",
        "api-name-unknown",
        "the name of the stack's API cannot be resolved: check DNS in the notebook's VPC, and that the stack exists "
        "({said})",
    ),
    Cause(
        NO_RESPONSE,
        "",
        "api-unreachable",
        "the stack cannot be reached; check the network path (proxy, NAT or VPC endpoint): {said}",
    ),
    Cause(
        FORBIDDEN,
        r"^Forbidden$",  # API Gateway's message through an interface endpoint that does not serve this API
        "api-private-endpoint",
        "a VPC endpoint for execute-api blocks the public API ({status}); an admin sets the stack's ApiUrl",
    ),
    Cause(
        FORBIDDEN,
        r"not authorized|explicit deny",
        "api-not-allowed",
        "the notebook's role may not report ({status}); an admin allows it execute-api:Invoke: {said}",
    ),
    Cause(
        FORBIDDEN,
        r"Signature (expired|not yet current)",
        "api-clock",
        "the notebook's clock is wrong ({status}); the agent corrects for it at its next report: {said}",
    ),
    Cause(
        FORBIDDEN,
        r"security token|request signature",
        "api-credentials-refused",
        "AWS refuses the credentials of the notebook's role ({status}); new ones are taken at the next report, and if "
        "it stays so, restart the notebook: {said}",
    ),
    Cause(
        CLIENT,
        r"Missing Authentication Token|^Not Found$",
        "api-not-found",
        "there is no such stack at the API's address any more ({status}): restart the notebook, or ask your admin",
    ),
    Cause(
        range(429, 430),
        "",
        "api-busy",
        "the stack gets more requests than it allows ({status}); it is retried: {said}",
    ),
    Cause(CLIENT, "", "api-refused", "the stack did not accept the report ({status}): {said}"),
    Cause(SERVER, "", "api-unavailable", "the stack did not accept the report ({status}); it is retried: {said}"),
    Cause(ANY, "", "api-refused", "the stack did not accept the report ({status}): {said}"),
)


def explain(status: int, text: str) -> Problem:
    """Return the problem for a report that failed. status: the HTTP status, or 0 if there was no response."""
    said = message_of(text) if status else text
    cause = next(each for each in CAUSES if each.matches(status, said))
    return cause.code, one_line(cause.message.format(status=status, said=one_line(said, 200)).removesuffix(": "))


def message_of(text: str) -> str:
    """Return the message in an answer of API Gateway's, which has `message` or, at times, `Message`; else the text."""
    try:
        answer = dict(json.loads(text))
    except (ValueError, TypeError):
        return text if text.lstrip()[:1] == "<" or text == "unreadable" else ""
    return str(answer.get("message") or answer.get("Message") or "")


def refine(client: StackClient, error: tuple[int, str]) -> tuple[int, str]:
    """Return the error of a failed report, with its cause if only another request can show it.

    Without credentials the error is often that of a network: the one to the instance's metadata.
    """
    if error[0] or explain(*error)[0] != "api-unreachable":
        return error
    result = client.run_helper(INSTALL_DIR + "worker.py", "check-credentials", {})
    return (0, f"no credentials: {error[1]}") if result.get("credentials") is False else error


def check_credentials() -> None:
    """Print {"credentials"}: whether the instance gives some; the child `check-credentials`."""
    try:
        found = bool(get_credentials()["Token"])
    except (OSError, ValueError, LookupError, TypeError):
        found = False
    print(json.dumps({"credentials": found}))
