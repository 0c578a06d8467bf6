"""What is decided about a notebook and its configuration, told as cases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st
from support.examples import examples
from support.model_of_sagemaker import BODY, FALLBACK, TERMS, Model

from notebook_ssh.errors import Problem
from notebook_ssh.model.managed_block import Block, Present, fingerprint, insert_block, inspect, remove_block
from notebook_ssh.model.record import NotebookState, Record, RestartStep
from notebook_ssh.planning.actions import Detach, WriteScript, reasons
from notebook_ssh.planning.facts import is_inactive
from notebook_ssh.planning.lifecycle_config import includes_change, plan_lifecycle_config
from notebook_ssh.planning.notebook import plan_notebook
from notebook_ssh.planning.observation import LifecycleConfigRecord, Users
from notebook_ssh.planning.script import EMPTY_SCRIPT

OWNERS = b"#!/bin/bash\nset -e\npip install team-tools\n"
RUNNING, STOPPED = NotebookState.IN_SERVICE, NotebookState.STOPPED


def a_team(*names: str, tags: dict[str, str] | None = None, state: NotebookState = RUNNING) -> Model:
    """Notebooks that share the configuration `team`; the first has `tags`."""
    model = Model()
    model.configure("team", OWNERS, on_create=b"#!/bin/sh\n")
    for name in names or ("box",):
        model.add(name, "team", state)
    model.tags[(names or ("box",))[0]] = tags or {}
    return model


def has_block(model: Model, lifecycle_config: str = "team") -> bool:
    return isinstance(inspect(model.lifecycle_configs[lifecycle_config].on_start, "team-ssh"), Present)


def kinds(actions: Any) -> list[str]:
    return [type(action).__name__ for action in actions]


@pytest.mark.parametrize(
    ("changed", "config_record", "seen"),
    [
        (1_800_000_000_348, 1_800_000_000_348, True),
        (1_800_000_000_347, 1_800_000_000_348, True),
        (1_800_000_000_349, 1_800_000_000_348, False),
        (1_800_000_000_000, 1_800_000_000_348, False),  # rounded, and perhaps later than what was seen
        (1_800_000_000_348, 1_800_000_000_000, False),
        (1_800_000_000_348, 1_800_000_000, False),  # in seconds, by an older version of the stack
        (1_800_000_000_348, 0, False),  # a write that was begun
        (0, 1_800_000_000_348, False),
    ],
)
def test_a_change_is_covered_if_the_last_read_certainly_came_after_it(
    changed: int, config_record: int, seen: bool
) -> None:
    assert includes_change(changed, LifecycleConfigRecord("team", modified=config_record)) is seen
    assert not includes_change(changed, None)


# ---- in and out --------------------------------------------------------------------------------


def test_a_tag_backs_the_script_up_and_puts_the_block_in() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    assert kinds(model.reconcile("box")) == ["ExpireBackups", "BackupScript", "WriteScript"]
    assert model.lifecycle_configs["team"].on_start == insert_block(OWNERS, TERMS.block).script  # type: ignore[union-attr]
    assert model.lifecycle_configs["team"].on_create == b"#!/bin/sh\n"
    assert model.records["box"].block_since is not None


def test_nothing_is_done_about_an_untagged_notebook() -> None:
    model = a_team()
    assert model.reconcile("box") == ()
    assert model.records == {}
    assert model.config_record == {}


def test_the_last_tag_gone_takes_the_block_out_to_the_byte() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs["team"].on_start == OWNERS
    assert is_inactive(model.records["box"])
    assert model.config_record == {}


def test_an_absent_script_is_absent_again_in_the_end() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.configure("team", None)
    model.settle()
    assert has_block(model)
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs["team"].on_start is None


def test_an_owners_edit_outside_the_markers_survives_everything() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    with_block = model.lifecycle_configs["team"].on_start or b""
    model.configure("team", with_block + b"echo added later\n")
    model.settle()
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs["team"].on_start == OWNERS + b"echo added later\n"


@pytest.mark.parametrize(
    ("drift", "why"),
    [
        (lambda script: script.replace(BODY, b": edited\n"), "the block was edited"),
        (lambda script: OWNERS, "a notebook that uses this configuration requests SSH"),
    ],
    ids=["edited inside the markers", "removed by hand"],
)
def test_drift_is_put_right(drift: Any, why: str) -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    whole = model.lifecycle_configs["team"].on_start
    model.configure("team", drift(whole))
    actions = model.reconcile_lifecycle_config("team")
    assert actions[-1].reason == why
    assert model.lifecycle_configs["team"].on_start == whole


def test_a_new_version_rewrites_the_block_and_counts_as_in_place_all_along() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    since = model.records["box"].block_since
    body = b": the next block\n"
    model.policy = TERMS._replace(block=Block("team-ssh", "1.1.0", fingerprint(body), body))
    actions = model.reconcile("box")
    assert actions[-1].reason == "the block is of version 1.0.0, the stack of 1.1.0"
    assert body in (model.lifecycle_configs["team"].on_start or b"")
    assert model.records["box"].block_since == since


# ---- sharing -----------------------------------------------------------------------------------


def test_a_reconcile_without_a_write_slot_does_not_record_the_script_as_observed() -> None:
    model = a_team("a", "b", tags={"ssh": "ngrok"})
    model.tags["b"] = {"ssh": "ngrok"}
    model.settle()
    model.tags["b"] = {}
    noted = model.config_record["team"]
    model.now += 100
    model.configure("team", OWNERS)  # the block is gone, and the event with it
    assert plan_notebook(model.see("b"), model.policy, model.now).config_record == noted


def test_the_block_stays_while_one_of_many_is_tagged() -> None:
    model = a_team("a", "b", "c", tags={"ssh": "ngrok"})
    model.tags["b"] = {"ssh": "bastion"}
    model.settle()
    model.tags["a"] = {}
    model.settle()
    assert has_block(model)
    model.tags["c"], model.tags["b"] = {"ssh": "ngrok"}, {}  # one joins while another leaves
    model.settle()
    assert has_block(model)
    model.tags["c"] = {}
    model.settle()
    assert model.lifecycle_configs["team"].on_start == OWNERS


@pytest.mark.parametrize(
    "users",
    [
        None,
        Users(("box", "other"), complete=False),
        Users(("box", "other"), ("other",), complete=False),
        Users(("box", "other"), (), ("other",)),
    ],
    ids=["not read", "read in part", "another asks", "another cannot be understood"],
)
def test_without_full_knowledge_nothing_is_stripped(users: Users | None) -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    model.tags["box"] = {}
    plan = plan_notebook(model.see("box")._replace(users=users), TERMS, model.now)
    assert plan.actions == ()
    assert plan.config_record is not None
    lifecycle_config = model.see_configuration("team")._replace(users=users)
    assert not any(
        isinstance(action, WriteScript) for action in plan_lifecycle_config(lifecycle_config, TERMS, 0).actions
    )


def test_a_tag_that_cannot_be_understood_changes_nothing() -> None:
    model = a_team("a", "b", tags={"ssh": "ngrok"})
    model.settle()
    model.tags["a"] = {"ssh": "ngork"}
    model.settle()
    assert has_block(model)
    assert model.records["a"].spec.modes == ()
    fresh = a_team(tags={"ssh": "ngork"})
    fresh.settle()
    assert fresh.done == []
    assert fresh.records["box"].spec.problem is not None


def test_switching_the_configuration_moves_the_block() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.configure("other", b"#!/bin/sh\necho other\n")
    model.settle()
    model.turn("box", STOPPED)
    model.notebooks["box"] = model.notebooks["box"]._replace(lifecycle_config="other")
    model.reconcile("box")
    assert has_block(model, "other")
    assert model.lifecycle_configs["team"].on_start == OWNERS


def test_another_stacks_block_is_left_alone() -> None:
    theirs = insert_block(OWNERS, Block("their-ssh", "1.0.0", fingerprint(BODY), BODY))
    model = a_team(tags={"ssh": "ngrok"})
    model.configure("team", theirs.script)  # type: ignore[union-attr]
    model.settle()
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs["team"].on_start == theirs.script  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (b"#!/usr/bin/python3\nprint('hello')\n", "config-not-shell"),
        (b"#!/bin/bash\r\n:\r\n", "config-line-ends"),
        (b"#!/bin/sh\n" + b"#" * 12_270, "config-too-large"),
        (b"#!/bin/sh\n# <<< notebook-ssh stack=team-ssh <<<\n", "block-damaged"),
    ],
)
def test_a_script_that_cannot_take_the_block_stays_and_the_record_says_why(script: bytes, code: str) -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.configure("team", script)
    model.settle()
    assert model.lifecycle_configs["team"].on_start == script
    problem = model.records["box"].problem
    assert problem is not None
    assert problem.code == code
    model.configure("team", OWNERS)
    model.settle()
    assert model.records["box"].problem is None
    assert has_block(model)


def test_a_deleted_notebook_is_forgotten_and_its_configuration_cleaned() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    del model.notebooks["box"]
    model.settle()
    assert model.records == {}
    assert model.lifecycle_configs["team"].on_start == OWNERS


def test_a_notebook_being_deleted_is_left_alone() -> None:
    model = a_team(tags={"ssh": "ngrok"})
    model.settle()
    model.tags["box"] = {}
    model.turn("box", NotebookState.DELETING)
    assert model.reconcile("box") == ()
    assert model.records["box"].state is NotebookState.DELETING
    assert model.config_record["team"].block


# ---- without a configuration -------------------------------------------------------------------


def alone(state: NotebookState = RUNNING, **tags: str) -> Model:
    model = Model()
    model.add("box", None, state)
    model.tags["box"] = {key.replace("_", "-"): value for key, value in tags.items()}
    return model


def test_a_running_notebook_waits_until_it_stops() -> None:
    model = alone(ssh="ngrok")
    model.settle()
    assert model.done == []
    assert model.records["box"].lifecycle_config is None
    model.turn("box", STOPPED)
    model.settle()
    assert kinds(model.done) == ["CreateLifecycleConfig", "Attach"]
    assert model.lifecycle_configs[FALLBACK].on_create == EMPTY_SCRIPT
    assert remove_block(model.lifecycle_configs[FALLBACK].on_start, "team-ssh") == EMPTY_SCRIPT
    assert model.records["box"].attached_config == FALLBACK


def test_the_configuration_is_made_once_for_all() -> None:
    model = alone(STOPPED, ssh="ngrok")
    model.add("second", None, STOPPED)
    model.tags["second"] = {"ssh": "ngrok"}
    model.settle()
    assert kinds(model.done).count("CreateLifecycleConfig") == 1
    model.tags["second"] = {}
    model.settle()
    assert has_block(model, FALLBACK)
    assert model.notebooks["second"].lifecycle_config is None
    model.tags["box"] = {}
    model.settle()
    assert model.notebooks["box"].lifecycle_config is None
    assert model.lifecycle_configs == {}


def test_a_running_notebook_keeps_an_attached_script_that_does_nothing_until_it_stops() -> None:
    model = alone(STOPPED, ssh="ngrok")
    model.settle()
    model.turn("box", RUNNING)
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs[FALLBACK].on_start == EMPTY_SCRIPT
    assert model.notebooks["box"].lifecycle_config == FALLBACK
    assert not is_inactive(model.records["box"])
    model.turn("box", STOPPED)
    model.settle()
    assert model.notebooks["box"].lifecycle_config is None
    assert model.lifecycle_configs == {}
    assert is_inactive(model.records["box"])


def test_an_existing_configuration_of_that_name_is_used_and_never_deleted() -> None:
    model = alone(STOPPED, ssh="ngrok")
    model.configure(FALLBACK, OWNERS)
    model.settle()
    assert model.notebooks["box"].lifecycle_config == FALLBACK
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs[FALLBACK].on_start == OWNERS


def test_what_a_person_attached_is_never_detached() -> None:
    model = alone(STOPPED)
    model.configure(FALLBACK, EMPTY_SCRIPT, EMPTY_SCRIPT)
    model.notebooks["box"] = model.notebooks["box"]._replace(lifecycle_config=FALLBACK)
    model.tags["box"] = {"ssh": "ngrok"}
    model.settle()
    model.tags["box"] = {}
    model.settle()
    assert model.notebooks["box"].lifecycle_config == FALLBACK
    assert not any(isinstance(action, Detach) for action in model.done)


def test_a_configuration_of_ours_that_a_user_wrote_into_is_theirs() -> None:
    model = alone(STOPPED, ssh="ngrok")
    model.settle()
    written = (model.lifecycle_configs[FALLBACK].on_start or b"") + b"echo mine now\n"
    model.configure(FALLBACK, written, EMPTY_SCRIPT)
    model.tags["box"] = {}
    model.settle()
    assert model.lifecycle_configs[FALLBACK].on_start == EMPTY_SCRIPT + b"echo mine now\n"
    assert model.notebooks["box"].lifecycle_config == FALLBACK


# ---- the opted-in restart ----------------------------------------------------------------------


def restarted(model: Model) -> tuple[int, int]:
    return kinds(model.done).count("Stop"), kinds(model.done).count("Start")


@pytest.mark.parametrize("age", [0, 1000], ids=["tagged the moment it runs", "tagged later"])
@pytest.mark.parametrize("configured", [True, False])
def test_one_restart_makes_the_change_effective(configured: bool, age: int) -> None:
    model = a_team() if configured else alone()
    model.now = model.notebooks["box"].state_since + age - 1  # a look takes place a second later
    model.tags["box"] = {"ssh": "ngrok", "ssh-restart": "now"}
    model.settle()
    assert restarted(model) == (1, 1)
    assert model.notebooks["box"].state is RUNNING
    assert model.tags["box"] == {"ssh": "ngrok"}
    assert model.records["box"].restart is None


@pytest.mark.parametrize(
    ("state", "tags"),
    [
        (STOPPED, {"ssh": "ngrok", "ssh-restart": "now"}),
        (RUNNING, {"ssh-restart": "now"}),
        (RUNNING, {"ssh": "off", "ssh-restart": "now"}),
        (RUNNING, {"ssh": "ngork", "ssh-restart": "now"}),
        (RUNNING, {"ssh": "ngrok", "ssh-restart": "now", "ssh-until": "2020-01-01T00:00Z"}),
        (NotebookState.FAILED, {"ssh": "ngrok", "ssh-restart": "now"}),
    ],
    ids=["stopped stays stopped", "not tagged", "off", "not understood", "expired", "failed"],
)
def test_no_restart(state: NotebookState, tags: dict[str, str]) -> None:
    model = a_team(state=state, tags=tags)
    model.now += 1000
    model.settle()
    assert restarted(model) == (0, 0)
    assert model.notebooks["box"].state is state


def test_a_restart_that_would_change_nothing_is_not_made() -> None:
    model = a_team(tags={"ssh": "ngrok"}, state=STOPPED)
    model.settle()
    model.turn("box", RUNNING)
    model.tags["box"] |= {"ssh-restart": "now"}
    model.settle()
    assert restarted(model) == (0, 0)
    assert "ssh-restart" not in model.tags["box"]


@pytest.mark.parametrize("script", [b"#!/usr/bin/python3\n", b"#!/bin/bash\r\n:\r\n"])
def test_a_script_that_cannot_take_the_block_is_no_reason_to_restart(script: bytes) -> None:
    model = a_team(tags={"ssh": "ngrok", "ssh-restart": "now"})
    model.configure("team", script)
    model.settle()
    assert restarted(model) == (0, 0)


def test_a_notebook_that_we_stopped_is_started_even_if_the_tags_are_removed_in_between() -> None:
    model = a_team(tags={"ssh": "ngrok", "ssh-restart": "now"})
    model.now += 1000
    model.reconcile("box")
    assert model.notebooks["box"].state is NotebookState.STOPPING
    model.tags["box"] = {}
    model.settle()
    assert restarted(model) == (1, 1)
    assert model.notebooks["box"].state is RUNNING
    assert model.lifecycle_configs["team"].on_start == OWNERS


def test_a_person_who_starts_it_in_between_spares_us_the_start() -> None:
    model = a_team(tags={"ssh": "ngrok", "ssh-restart": "now"})
    model.now += 1000
    model.reconcile("box")
    model.finish()
    model.turn("box", RUNNING)
    model.settle()
    assert restarted(model) == (1, 0)
    assert model.tags["box"] == {"ssh": "ngrok"}


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("crashed_look", range(8))
@pytest.mark.parametrize("after", range(4))
def test_a_crash_at_any_step_repeats_none(configured: bool, crashed_look: int, after: int) -> None:
    model = a_team() if configured else alone()
    model.now += 1000
    model.tags["box"] = {"ssh": "ngrok", "ssh-restart": "now"}
    for number in range(10):
        model.reconcile("box", crash_after=after if number == crashed_look else None)
        model.finish()
    model.settle()
    assert restarted(model) == (1, 1)
    assert model.notebooks["box"].state is RUNNING
    assert model.tags["box"] == {"ssh": "ngrok"}
    assert model.records["box"].restart is None


@pytest.mark.parametrize(("minutes", "starts"), [(28, 1), (29, 0)])
def test_who_stops_a_notebook_long_after_our_stop_came_to_nothing_wants_it_stopped(minutes: int, starts: int) -> None:
    model = a_team(tags={"ssh": "ngrok", "ssh-restart": "now"})
    model.now += 1000
    model.reconcile("box", crash_after=0)
    model.now += minutes * 60
    model.turn("box", STOPPED)
    model.settle()
    assert restarted(model) == (0, starts)
    assert model.tags["box"] == {"ssh": "ngrok"}
    assert model.records["box"].restart is None


def test_the_step_is_written_down_before_the_call() -> None:
    model = a_team(tags={"ssh": "ngrok", "ssh-restart": "now"})
    model.now += 1000
    model.reconcile("box", crash_after=0)
    restart = model.records["box"].restart
    assert restart is not None
    assert (restart.step, restart.since) == (RestartStep.STOP, model.notebooks["box"].state_since)


# ---- when a run began --------------------------------------------------------------------------


def test_a_run_observed_pending_began_then_and_another_one_when_in_service() -> None:
    model = a_team(tags={"ssh": "ngrok"}, state=STOPPED)
    model.settle()
    assert model.records["box"].started_at is None
    model.turn("box", NotebookState.PENDING)
    began = model.now
    model.reconcile("box")
    model.finish()
    model.reconcile("box")
    assert model.records["box"].started_at == began
    model.now += 5000  # stopped and started without our hearing of it
    model.turn("box", RUNNING)
    model.reconcile("box")
    assert model.records["box"].started_at == model.now - 1


# ---- properties --------------------------------------------------------------------------------

TAGS = st.fixed_dictionaries(
    {},
    optional={
        "ssh": st.sampled_from(["ngrok", "bastion", "off", "ngork"]),
        "ssh-restart": st.just("now"),
        "ssh-until": st.sampled_from(["2020-01-01T00:00Z", "2100-01-01T00:00Z", "soon"]),
    },
)
SCRIPTS = st.sampled_from(
    [
        OWNERS,
        None,
        EMPTY_SCRIPT,
        b"",
        b"echo no shebang",
        b"#!/usr/bin/python3\n",
        b"#!/bin/sh\r\nexit 0\r\n",
        b"#!/bin/sh",
    ]
)
STATES = st.sampled_from(list(NotebookState))


@st.composite
def models(draw: st.DrawFn) -> Model:
    model = Model()
    model.now += 1000
    names = ["team", "other", FALLBACK]
    for name in names[: draw(st.integers(0, 3))]:
        model.configure(name, draw(SCRIPTS), draw(st.sampled_from([None, EMPTY_SCRIPT])))
    for number in range(draw(st.integers(1, 4))):
        name = f"box-{number}"
        model.add(name, draw(st.sampled_from([None, *model.lifecycle_configs])), draw(STATES))
        model.tags[name] = draw(TAGS)
    return model


@given(models())
@examples(300)
def test_planning_after_applying_is_empty(model: Model) -> None:
    model.settle()
    for name in [*model.notebooks]:
        assert model.reconcile(name) == ()
    for name in [*model.lifecycle_configs]:
        assert model.reconcile_lifecycle_config(name) == ()


@given(models())
@examples(300)
def test_untagging_everything_restores_every_script_and_attachment(model: Model) -> None:
    scripts = {name: (each.on_create, each.on_start) for name, each in model.lifecycle_configs.items()}
    attached_config = {name: notebook.lifecycle_config for name, notebook in model.notebooks.items()}
    model.settle()
    for name in model.notebooks:
        model.tags[name] = {}
    model.settle()
    for name, notebook in model.notebooks.items():
        if notebook.state is RUNNING:
            model.turn(name, STOPPED)
    model.settle()
    assert {name: (each.on_create, each.on_start) for name, each in model.lifecycle_configs.items()} == scripts
    assert {
        name: notebook.lifecycle_config
        for name, notebook in model.notebooks.items()
        if notebook.state is not NotebookState.DELETING
    } == {
        name: lifecycle_config
        for name, lifecycle_config in attached_config.items()
        if model.notebooks[name].state is not NotebookState.DELETING
    }


@given(models())
@examples(300)
def test_configurations_of_untagged_notebooks_are_never_written(model: Model) -> None:
    tagged = {
        model.notebooks[name].lifecycle_config or FALLBACK
        for name, tags in model.tags.items()
        if tags.get("ssh") != "off"
    }
    model.settle()
    assert {action.lifecycle_config.name for action in model.done if isinstance(action, WriteScript)} <= tagged


@given(models(), st.data())
@examples(300)
def test_a_partial_read_takes_nothing_away(model: Model, data: st.DataObject) -> None:
    model.settle()
    for name in model.notebooks:
        model.tags[name] = data.draw(TAGS)
    for name in model.notebooks:
        seen = model.see(name)
        partial = seen._replace(users=data.draw(st.sampled_from([None, Users(complete=False)])))
        for action in plan_notebook(partial, TERMS, model.now).actions:
            if isinstance(action, WriteScript):
                assert BODY in (action.on_start or b"")


@given(models(), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=8))
@examples(200)
def test_crashes_anywhere_end_converged(model: Model, crashes: list[tuple[int, int]]) -> None:
    """Whatever was interrupted, each look leaves things so that the next ones finish the work."""
    names = list(model.notebooks)
    for which, after in crashes:
        model.reconcile(names[which % len(names)], crash_after=after)
        model.finish()
    model.settle()
    for name in names:
        spec = model.see(name).spec
        lifecycle_config = model.lifecycle_configs.get(model.notebooks[name].lifecycle_config or "")
        refused = model.records[name].problem if name in model.records else None
        there = model.notebooks[name].state is not NotebookState.DELETING
        if there and spec.effective_modes(model.now) and lifecycle_config and not refused:
            assert BODY in (lifecycle_config.on_start or b"")


@given(models())
@examples(200)
def test_every_action_says_why(model: Model) -> None:
    model.settle()
    for sentence in reasons(model.done):
        what, _, why = sentence.partition(": ")
        assert what
        assert why


def test_a_record_with_something_left_to_do_is_not_settled() -> None:
    assert is_inactive(Record("box"))
    assert not is_inactive(Record("box", attached_config=FALLBACK))
    assert not is_inactive(Record("box", problem=Problem("block-damaged", "…")))
