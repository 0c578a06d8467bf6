"""Plan the restart that a notebook's tag requests: stop → (attach) → start, once, and only if it changes something."""

from __future__ import annotations

from notebook_ssh.model.record import NotebookState, Record, Restart, RestartStep, predates_block
from notebook_ssh.model.spec import NotebookSpec, restart_key
from notebook_ssh.planning.actions import Action, RemoveTag, Start, Stop
from notebook_ssh.planning.observation import BlockPolicy, Notebook
from notebook_ssh.planning.script import ScriptPlan

MAX_STOP_S = 1_800
"""Seconds after which a recorded stop is not what stopped a notebook: a stop usually takes minutes."""

RestartPlan = tuple[tuple[Action, ...], Restart | None]
"""The actions, and the restart's progress once they are done."""


def plan_restart(
    notebook: Notebook, spec: NotebookSpec, facts: Record, script: ScriptPlan, policy: BlockPolicy, now: int
) -> RestartPlan:
    """Plan the next step of a restart.

    Each step is recorded before its call, with the time of the state that it ends. So after a crash the record shows
    whether the call arrived, and no step is repeated.
    """
    restart, wanted = facts.restart, bool(spec.effective_modes(now))
    if restart is None:
        if not (wanted and spec.restart):
            return (), None
        return _begin(notebook, spec, facts, script, policy, now)
    same = restart.since == notebook.state_since
    done = _clear_restart_tag(notebook, spec, policy, "the restart is done"), None
    start = Start(notebook.name, "this stack stopped it for its restart")
    match restart.step, notebook.state:
        case RestartStep.STOP, NotebookState.IN_SERVICE:
            return _stop(notebook, policy, now) if same and wanted and spec.restart else done
        case RestartStep.STOP, NotebookState.STOPPED | NotebookState.FAILED:
            if notebook.state_since > restart.at + MAX_STOP_S:
                return done  # the call never arrived, and a user stopped the notebook since, maybe to keep it stopped
            if wanted and notebook.lifecycle_config is None and not script.problem:
                return (), restart  # attached first; the change of state triggers the next plan
            # Even if the tags are gone by now: the stack stopped it, so it starts it.
            return (start,), Restart(RestartStep.START, notebook.state_since, restart.at)
        case RestartStep.START, NotebookState.STOPPED | NotebookState.FAILED if same:
            return (start,), restart
        case RestartStep.START, _:
            return done
        case RestartStep.STOP, NotebookState.PENDING:
            return done  # a user started it
        case _:
            return (), restart


def _begin(
    notebook: Notebook, spec: NotebookSpec, facts: Record, script: ScriptPlan, policy: BlockPolicy, now: int
) -> RestartPlan:
    if notebook.unsupported_platform:
        return _clear_restart_tag(notebook, spec, policy, "AWS does not start its platform again"), None
    if notebook.state in (NotebookState.STOPPED, NotebookState.FAILED):
        return _clear_restart_tag(notebook, spec, policy, "a notebook that is not running is left so"), None
    if notebook.state is not NotebookState.IN_SERVICE or script.problem:
        return (), None
    if _is_effective(notebook, facts, script):
        return _clear_restart_tag(notebook, spec, policy, "there is nothing to restart for"), None
    return _stop(notebook, policy, now)


def _stop(notebook: Notebook, policy: BlockPolicy, now: int) -> RestartPlan:
    reason = f"the tag {restart_key(policy.tag_key)} asks for one restart, and only a start makes the change effective"
    return (Stop(notebook.name, reason),), Restart(RestartStep.STOP, notebook.state_since, now)


def _clear_restart_tag(notebook: Notebook, spec: NotebookSpec, policy: BlockPolicy, reason: str) -> tuple[Action, ...]:
    return (RemoveTag(notebook.arn, restart_key(policy.tag_key), reason),) if spec.restart else ()


def _is_effective(notebook: Notebook, facts: Record, script: ScriptPlan) -> bool:
    """Return whether the current run started with the block that the script has."""
    since = script.effective_since
    if notebook.lifecycle_config is None or since is None:
        return False
    report = facts.report
    if report is not None and report.booted_at >= since:
        return True
    return not predates_block(facts, since)
