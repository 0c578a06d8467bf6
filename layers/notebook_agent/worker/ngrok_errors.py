"""ngrok's error codes as problems with what to do."""

from __future__ import annotations

import re

from worker.model import Problem

# Problems by ngrok's error codes (https://ngrok.com/docs/errors).
NGROK_ERRORS = {
    "105 106 107 300 4018": (
        "ngrok-token-invalid",
        "ngrok refuses the token: an admin stores a valid one in the stack's secret",
    ),
    "108 348 349": (
        "ngrok-session-limit",
        "the ngrok account runs as many agents as its plan allows: stop one, or upgrade",
    ),
    "121": ("ngrok-agent-old", "ngrok refuses this version of its agent; a new one is downloaded"),
    "307 309 310 311": (
        "ngrok-address-refused",
        "the reserved address does not belong to this ngrok account: correct the tag or config.yml",
    ),
    "334": ("ngrok-address-busy", "another ngrok agent uses this address: stop that one, or reserve another address"),
    "725 726 729": (
        "ngrok-monthly-limit",
        "the ngrok account has reached its monthly limit: wait for the next month, or upgrade the plan",
    ),
    "8013": (
        "ngrok-card-required",
        "ngrok requires a card on file for TCP addresses: add one at dashboard.ngrok.com, Billing",
    ),
    "9009": (
        "ngrok-proxy-plan",
        "ngrok through a proxy needs a paid plan: upgrade, or allow the notebook direct access",
    ),
}
PROBLEM_OF_ERROR = {number: problem for numbers, problem in NGROK_ERRORS.items() for number in numbers.split()}
# Retryable errors: a session that has not timed out after a restart, a network that is down.
RETRYABLE = "ngrok-session-limit", "ngrok-address-busy", "ngrok-other-endpoint", "ngrok-unreachable", "ngrok-ended"


def explain_error(text: str, name: str | None, endpoint: str, address: str) -> Problem:
    """Return the problem in `text`, all that ngrok has written of an error.

    name: the endpoint that ngrok names with it, or None. endpoint, address: the name of the endpoint for SSH, and its
    reserved address (`host:port`) or "". The user's other endpoints are started, too, so an error may be of one of them.
    """
    code = re.search(r"ERR_NGROK_(\d+)", text)
    if not code:
        if text.startswith("Error reading configuration file"):
            return "ngrok-config", f"correct ~/SageMaker/.ngrok/config.yml, which ngrok refuses: {text}"
        return "ngrok-failed", f"ngrok: {text}"
    number = code[0]
    known, sentence = PROBLEM_OF_ERROR.get(code[1], ("ngrok-failed", ""))
    # An address in quotation marks is the endpoint's that the error is about.
    url = re.search(r"['\"]((?:tcp|tls|https?)://[^'\"]+)['\"]", text)
    is_others = url is not None and url[1] != f"tcp://{address}"
    if is_others or name not in (None, endpoint):
        which = " ".join(filter(None, [name, url[1] if url else ""]))
        reason = "it is online already" if known == "ngrok-address-busy" else sentence or text
        remedy = "stop it there, or remove it from ~/SageMaker/.ngrok/config.yml"
        return "ngrok-other-endpoint", f"ngrok refuses your endpoint {which} ({number}): {reason}; {remedy}"
    return known, f"{sentence} ({number})" if sentence else f"ngrok: {text}"
