"""Facts about permissions: what IAM and CloudWatch Logs compare. Roles of the lab make the calls (lab.yaml)."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from notebook_ssh_verify import signed
from notebook_ssh_verify.account import Account, Refusal
from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.notebooks import stopped, wait_for_status

POLICY_LIMIT_S = 60.0
"""Seconds until a policy has its effect: IAM is eventually consistent."""

START = "sagemaker:StartNotebookInstance"


# ---- start-permissions -----------------------------------------------------------------------------


class StartByRole(NamedTuple):
    """How SageMaker refused the start to a role that may do nothing else; None: it accepted it.

    in_vpc: whether the notebook has a subnet. status: where an accepted start led. reason: SageMaker's, if it failed.
    """

    refused: Refusal | None
    in_vpc: bool
    status: str = ""
    reason: str = ""


def observe_start(lab: Lab) -> StartByRole:
    """Stop a notebook, in the VPC if there is one, and let a role start it. It ends InService if it was."""
    notebook, in_vpc = _notebook_in_vpc(lab)
    starter = lab.account.as_role(lab.outputs["StartRole"], lab.run.name("start"))
    with stopped(lab, notebook):
        refused = _start(lab, starter, notebook)
        if refused:
            return StartByRole(refused, in_vpc)
        status = wait_for_status(lab, notebook, "InService", "Failed", "Stopped")
        reason = str(lab.describe_notebook(notebook).get("FailureReason", ""))
        return StartByRole(None, in_vpc, status, reason if status != "InService" else "")


def decide_start(seen: StartByRole) -> Decision:
    """It must be refused for want of another permission."""
    match seen:
        case StartByRole(Refusal(_, message)) if "not authorized to perform" in message and START not in message:
            return Holds(f"a role that may only start the notebook is refused: {message}")
        case StartByRole(Refusal(code, message)):
            return Undecided(f"SageMaker answered {code}, which names no other permission: {message}")
        case StartByRole(None, in_vpc, "InService"):
            if in_vpc:
                return Refuted("a role that may do nothing else started a notebook in a VPC")
            return Undecided("a role that may do nothing else started a notebook, which is in no VPC")
        case StartByRole(None, _, status, reason) if "authorized" in reason or "permission" in reason.lower():
            return Holds(f"the start by a role that may do nothing else ended in {status}: {reason}")
        case StartByRole(None, _, status, reason):
            return Undecided(f"the start by a role that may do nothing else ended in {status}: {reason or 'no reason'}")
        case _:
            return Undecided("the start was neither accepted nor refused")


def _notebook_in_vpc(lab: Lab) -> tuple[str, bool]:
    """The last of the run's notebooks in a VPC, or the last."""
    for name in reversed(lab.notebooks):
        if lab.describe_notebook(name).get("SubnetId"):
            return name, True
    return lab.notebooks[-1], False


def _start(lab: Lab, starter: Account, notebook: str) -> Refusal | None:
    """Start the notebook. Until its policy has an effect, the role may not even that."""
    ends = time.monotonic() + POLICY_LIMIT_S
    while True:
        answer = starter.attempt("sagemaker", "start_notebook_instance", NotebookInstanceName=notebook)
        if not isinstance(answer, Refusal):
            return None
        if START not in answer.message or time.monotonic() > ends:
            return answer
        time.sleep(2)


# ---- parameters-by-path ----------------------------------------------------------------------------


class ParametersByPath(NamedTuple):
    """How GetParametersByPath was refused to a role that may read the path's own ARN, and to one for what is below it."""

    own: Refusal | None
    below: Refusal | None


def observe_parameters(lab: Lab) -> ParametersByPath:
    """Read the lab's path as either role, once one of them may."""
    own = lab.account.as_role(lab.outputs["PathRole"], lab.run.name("path"))
    below = lab.account.as_role(lab.outputs["BelowPathRole"], lab.run.name("below"))

    def read(account: Account) -> Refusal | None:
        answer = account.attempt("ssm", "get_parameters_by_path", Path=lab.outputs["ParameterPath"])
        return answer if isinstance(answer, Refusal) else None

    lab.wait(lambda: read(own) is None or read(below) is None, POLICY_LIMIT_S)
    return ParametersByPath(read(own), read(below))


def decide_parameters(seen: ParametersByPath) -> Decision:
    """The path's own ARN must be enough, and what is below it not."""
    match seen:
        case ParametersByPath(None, Refusal(code=code)) if _denied(code):
            return Holds("a role that may read the path's own ARN may, and one for what is below it may not")
        case ParametersByPath(Refusal(code=code), None) if _denied(code):
            return Refuted("a role that may read what is below the path may, and one for the path's own ARN may not")
        case ParametersByPath(None, None):
            return Undecided("both roles may, the one for the path's own ARN and the one for what is below it")
        case ParametersByPath(own, below):
            codes = " and ".join(each.code if each else "no error" for each in (own, below))
            return Undecided(f"neither role may, or for another reason: {codes}")


def _denied(code: str) -> bool:
    return code.startswith("AccessDenied")


# ---- path-as-sent ----------------------------------------------------------------------------------


class EscapedPath(NamedTuple):
    """What the API answered to a role that is denied one notebook: on its plain path, and with an escape in its name."""

    plain: signed.Response
    escaped: signed.Response


def observe_path(lab: Lab) -> EscapedPath:
    """Ask for a notebook that the role may not look up, by its plain path and with an escape."""
    reader = lab.account.as_role(lab.outputs["LookUpRole"], lab.run.name("look-up"))
    name = lab.notebooks[0]
    escaped = f"/notebooks/%{ord(name[0]):02X}{name[1:]}/ssh"

    def plain() -> signed.Response | None:
        answer = signed.get(lab, reader, f"/notebooks/{name}/ssh")
        return answer if _by_iam(answer) else None

    refused = lab.wait(plain, POLICY_LIMIT_S) or signed.get(lab, reader, f"/notebooks/{name}/ssh")
    return EscapedPath(refused, signed.get(lab, reader, escaped))


def decide_path(seen: EscapedPath) -> Decision:
    """With an escape it must get past IAM, which knows the plain path alone."""
    if not _by_iam(seen.plain):
        return Undecided(f"the role's policy denies it the plain path, and the API answered {seen.plain.status}")
    if _by_iam(seen.escaped):
        return Refuted("a policy that denies a notebook's path denies it with an escape in the name as well")
    if not _by_function(seen.escaped):
        answer = f"{seen.escaped.status} {seen.escaped.body[:120]}"
        return Undecided(f"the request with an escape was answered neither by the policy nor by a function: {answer}")
    seen_by = "no function refuses it either" if seen.escaped.status == 200 else "a function refuses it"
    return Holds(f"a policy that denies a notebook's path does not apply with an escape in the name; {seen_by}")


def _by_iam(answer: signed.Response) -> bool:
    """Whether IAM refused, in API Gateway's words, and no function, and not for the signature."""
    return answer.status == 403 and "is not authorized to perform" in answer.body


def _by_function(answer: signed.Response) -> bool:
    """Whether a function answered: either what was asked for, or an error as docs/api.md has it."""
    return answer.status == 200 or '"error"' in answer.body


# ---- filter-terms ----------------------------------------------------------------------------------

WORD, PART = "nbsshrefusedprobe", "refused"
"""A word of a log event, and a part of it."""

LOG_LIMIT_S = 120.0
"""Seconds until an event in CloudWatch Logs can be found."""


class FilterTerms(NamedTuple):
    """How many events a pattern found that is the whole word, and one that is a part of it."""

    whole: int
    part: int


def observe_filter(lab: Lab) -> FilterTerms:
    """Write one event into the lab's log group, and look for a word of it, and for a part of that."""
    group, stream = lab.outputs["LogGroup"], f"{time.time():.0f}-{time.monotonic_ns()}"
    lab.account.call("logs", "create_log_stream", logGroupName=group, logStreamName=stream)
    event = {"timestamp": int(time.time() * 1000), "message": f"the word {WORD} is in this line"}
    lab.account.call("logs", "put_log_events", logGroupName=group, logStreamName=stream, logEvents=[event])

    def found(pattern: str) -> int:
        answer = lab.account.call(
            "logs", "filter_log_events", logGroupName=group, logStreamNames=[stream], filterPattern=pattern
        )
        return len(answer["events"])

    whole = lab.wait(lambda: found(WORD) or None, LOG_LIMIT_S) or 0
    return FilterTerms(whole, found(PART))


def decide_filter(seen: FilterTerms) -> Decision:
    """The whole word must be found, and its part not."""
    match seen:
        case FilterTerms(whole=0):
            return Undecided(f"an event is not found by a word of it within {LOG_LIMIT_S:.0f} s")
        case FilterTerms(part=0):
            return Holds("an event is found by a whole word of it, and not by a part of that word")
        case _:
            return Refuted("an event is found by a part of a word of it")


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "start-permissions",
        "stop a notebook, and start it as a role that may do nothing else",
        frozenset({Need.LAB, Need.NOTEBOOK}),
        observe_start,
        decide_start,
    ),
    Experiment(
        "parameters-by-path",
        "read a path of parameters as a role for the path, and as one for what is below it",
        frozenset({Need.LAB}),
        observe_parameters,
        decide_parameters,
    ),
    Experiment(
        "path-as-sent",
        "look a notebook up as a role that is denied its path, with an escape in the name",
        frozenset({Need.LAB, Need.STACK, Need.NOTEBOOK}),
        observe_path,
        decide_path,
    ),
    Experiment(
        "filter-terms",
        "write a line into a log group, and look for a word of it and for a part of that",
        frozenset({Need.LAB}),
        observe_filter,
        decide_filter,
    ),
)
