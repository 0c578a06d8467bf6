"""Facts about SageMaker's API: what it compares, limits and refuses."""

from __future__ import annotations

from typing import Any, NamedTuple

from notebook_ssh_verify.account import Refusal
from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab


class NameCase(NamedTuple):
    """Whether a notebook is found under its name in other capitals, by either call; None: no notebook to ask for."""

    by_describe: bool | None
    by_list: bool | None


def observe_name_case(lab: Lab) -> NameCase:
    """Ask for a notebook under its name in other capitals: one of the run's, or any that the account has."""
    name = next(iter(lab.notebooks), None) or _any_name(lab)
    if name is None or name.swapcase() == name:
        return NameCase(None, None)
    described = lab.account.attempt("sagemaker", "describe_notebook_instance", NotebookInstanceName=name.swapcase())
    listed = lab.account.call("sagemaker", "list_notebook_instances", NameContains=name.swapcase())
    names = [each["NotebookInstanceName"] for each in listed["NotebookInstances"]]
    return NameCase(not isinstance(described, Refusal), name in names)


def decide_name_case(seen: NameCase) -> Decision:
    """Both must ignore capitals."""
    match seen:
        case NameCase(None, _) | NameCase(_, None):
            return Undecided("the account has no notebook whose name has a letter")
        case NameCase(True, True):
            return Holds("both calls find a notebook under its name in other capitals")
        case NameCase(False, False):
            return Refuted("neither call finds a notebook under its name in other capitals")
        case NameCase(by_describe, _):
            finds = ("DescribeNotebookInstance finds", "ListNotebookInstances does not")
            if not by_describe:
                finds = ("ListNotebookInstances finds", "DescribeNotebookInstance does not")
            return Refuted(f"{finds[0]} a notebook under its name in other capitals, and {finds[1]}")


def _any_name(lab: Lab) -> str | None:
    page: dict[str, Any] = lab.account.call("sagemaker", "list_notebook_instances", MaxResults=10)
    names = (each["NotebookInstanceName"] for each in page["NotebookInstances"])
    return next((name for name in names if name.swapcase() != name), None)


EXPERIMENTS = (
    Experiment(
        "name-case",
        "describe and list a notebook under its name in other capitals",
        frozenset[Need](),
        observe_name_case,
        decide_name_case,
    ),
)
