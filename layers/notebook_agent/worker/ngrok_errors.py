"""ngrok's error codes as problems with what to do."""

from __future__ import annotations

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
RETRYABLE = "ngrok-session-limit", "ngrok-address-busy", "ngrok-unreachable", "ngrok-ended"
