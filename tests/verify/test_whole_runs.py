"""Whole runs on the embedded AWS: each fact either way, fewer rights, an existing stack, and nothing of others touched."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from notebook_ssh_verify import register
from support.stack import PROJECT
from support.verification_run import Verification, of_runs, picture

from account import ADMIN
from emulator.answers import ANSWERS
from emulator.process import ACCOUNT
from processes import wait_until

pytestmark = pytest.mark.takes_minutes

OPEN = {"windows-known-hosts", "windows-match-exec", "maintenance-states", "fifo-rate"}
"""What a run cannot decide here: about OpenSSH for Windows, about a state that nothing causes, and, on a busy machine, how
many calls AWS would take. Each has a test of its own."""

OTHER = {"imds-role": "other-credentials"}
"""The answer that refutes a fact, where it is not the second one."""

RIGHTS = PROJECT / "verify/notebook_ssh_verify/rights.json"


@pytest.fixture(scope="module")
def verification() -> Iterator[Verification]:
    made = Verification()
    try:
        for name in ("their-notebook", "nbssh-verify-notebook"):
            wait_until(f"{name} runs", partial(made.env.is_in, name, "InService"))
        yield made
    finally:
        made.close()


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    return {each["id"]: each["verdict"] for each in report["facts"]}


def test_a_whole_run_leaves_everything_as_it_was(verification: Verification) -> None:
    before = picture(verification.env.emulator)
    report = verification.report()
    assert report["status"] == 0, report["output"]
    assert {step["result"] for step in report["scenario"]} == {"ok"}, report["output"]
    assert verdicts(report).keys() == register.read().keys()
    assert {fact for fact, verdict in verdicts(report).items() if verdict == "undecided"} <= OPEN, report["output"]
    assert "skipped" not in verdicts(report).values()
    assert picture(verification.env.emulator) == before


@pytest.mark.nightly(
    sibling="tests/verify/test_experiments_sagemaker.py::test_an_experiment_finds_the_answer_that_is_given"
)
def test_with_every_answer_flipped_every_verdict_is(verification: Verification) -> None:
    """Some by themselves, since others are decided by what an account refuses then, or a notebook does not have."""
    emulator = verification.env.emulator
    before = picture(emulator)
    first = verdicts(verification.report())
    alone = {"ngrok-redirect", "eice-interface"}, {"endpoint-pings"}
    second: dict[str, str] = {}
    for facts in (set(first) - OPEN - set().union(*alone), *alone):
        with emulator.answering({fact: OTHER.get(fact, ANSWERS[fact][1]) for fact in facts}):
            report = verification.report(*(word for fact in sorted(facts) for word in ("--only", fact)))
        second |= verdicts(report)
    pairs = {fact: {first[fact], verdict} for fact, verdict in second.items()}
    assert {fact: pair for fact, pair in pairs.items() if pair != {"holds", "refuted"}} == {}
    assert picture(emulator) == before


SCENARIOS: tuple[tuple[str, dict[str, str], tuple[str, ...]], ...] = (
    ("eice", {"tag-events": "absent", "cloudtrail-shape": "as-sent"}, ()),
    ("eice", {"describe-rate": "throttled", "fifo-rate": "throttled"}, ()),
    ("eice", {"sshd-runs": "masked"}, ()),
    ("eice", {"sshd-runs": "absent"}, ("InstallSshd=true",)),
    ("ngrok", {"sshd-runs": "masked", "systemd-on-start": "fails"}, ()),
    (
        "eice",
        {
            "empty-hook": "refused",
            "time-precision": "seconds-in-lists",
            "name-case": "ignored",
            "script-limit": "bytes",
            "delete-attached": "deletes",
            "start-permissions": "all",
        },
        (),
    ),
    ("eice", {"imds-role": "other-name", "parameters-by-path": "below", "path-as-sent": "decoded"}, ()),
    ("ngrok", {"ngrok-merge": "replaces", "ngrok-redirect": "redirects", "selinux-port": "refused"}, ()),
    (
        "eice",
        {
            "endpoint-refusals": "other",
            "endpoint-pings": "silent",
            "filter-terms": "substrings",
            "platform-refusal": "other-code",
            "expired-page": "other-code",
            "key-in-trail": "absent",
        },
        (),
    ),
    ("eice", {"empty-hook": "ignored", "expired-page": "never", "maintenance-states": "stays"}, ()),
    ("eice", {"maintenance-states": "ends"}, ()),
)
"""Answers that a scenario meets together: a mode, the answers, and parameters of the stack that they need."""

PATHLESS = {("imds-role", "other-credentials"), ("eice-interface", "refused")}
"""Answers with which nobody logs in, and is told why."""


def test_a_scenario_meets_every_answer() -> None:
    met = {each for _, answers, _ in SCENARIOS for each in answers.items()}
    assert met | PATHLESS == {(fact, other) for fact, answers in ANSWERS.items() for other in answers[1:]}


@pytest.mark.nightly(sibling="test_a_whole_run_leaves_everything_as_it_was")
@pytest.mark.parametrize(("mode", "answers", "parameters"), SCENARIOS)
def test_the_scenario_succeeds_whichever_way_facts_fall(
    verification: Verification, mode: str, answers: dict[str, str], parameters: tuple[str, ...]
) -> None:
    before = picture(verification.env.emulator)
    words = [word for parameter in parameters for word in ("--parameter", parameter)]
    with verification.env.emulator.answering(answers):
        report = verification.report("--only", "scenario", "--mode", mode, *words)
    assert {step["result"] for step in report["scenario"]} == {"ok"}, report["output"]
    assert report["status"] == 0
    after = picture(verification.env.emulator)
    if "maintenance-states" in answers:  # SageMaker's own doing, to every notebook
        for notebook in before["notebooks"] + after["notebooks"]:
            del notebook["LastModifiedTime"]
    assert after == before


@pytest.mark.nightly(
    sibling="tests/verify/test_experiments_endpoint.py::test_an_experiment_finds_the_answer_that_is_given"
)
def test_where_the_endpoint_does_not_reach_a_notebook_ssh_alone_fails_and_says_so(verification: Verification) -> None:
    before = picture(verification.env.emulator)
    with verification.env.emulator.answering({"eice-interface": "refused"}):
        report = verification.report("--only", "scenario", "--mode", "eice")
    failed = [step for step in report["scenario"] if step["result"] != "ok"]
    assert [step["step"].startswith("ssh logs in") for step in failed] == [True, True], report["output"]
    assert all("InvalidParameter" in step["detail"] for step in failed), report["output"]
    assert report["status"] == 1
    assert picture(verification.env.emulator) == before


@pytest.mark.nightly(
    sibling="tests/verify/test_experiments_notebook.py::test_an_experiment_finds_the_answer_that_is_given"
)
def test_where_another_role_signs_the_reports_everything_else_is_undone(verification: Verification) -> None:
    before = picture(verification.env.emulator)
    with verification.env.emulator.answering({"imds-role": "other-credentials"}):
        report = verification.report("--only", "scenario", "--minutes", "3")
    assert [step["result"] for step in report["scenario"]] == ["ok"], report["output"]
    assert report["stopped"] == "the limit of 3 minutes is reached (--minutes)"
    assert picture(verification.env.emulator) == before


def test_the_printed_rights_are_enough_for_a_whole_run(verification: Verification) -> None:
    policy = json.loads(RIGHTS.read_text().replace("ACCOUNT", ACCOUNT))
    keys = verification.env.make_session("verifier", policy)
    printed = verification.run("--rights", keys=keys)
    assert json.loads(printed.stdout) == policy
    report = verification.report(keys=keys)
    assert report["status"] == 0, report["output"]
    assert {step["result"] for step in report["scenario"]} == {"ok"}, report["output"]
    assert "was refused: " not in report["output"]


@pytest.mark.parametrize(
    ("denied", "skipped"),
    [
        (
            ["s3:PutObject", "kms:*"],
            {"eice-interface", "endpoint-pings", "endpoint-refusals", "key-in-trail", "path-as-sent"},
        ),
        (["sagemaker:CreateNotebookInstance"], {"sshd-runs", "imds-role", "systemd-on-start", "selinux-port"}),
    ],
)
def test_an_account_that_allows_less_gets_as_far_as_it_can(
    verification: Verification, denied: list[str], skipped: set[str]
) -> None:
    emulator = verification.env.emulator
    before = picture(emulator)
    guardrail = {"Effect": "Deny", "Action": denied, "Resource": "*"}
    statements = [*ADMIN["Statement"], guardrail]
    keys = verification.env.make_user(f"less-{len(denied)}", {"Version": "2012-10-17", "Statement": statements})
    report = verification.report(keys=keys)
    told = {each["id"]: each for each in report["facts"]}
    assert skipped <= {fact for fact, verdict in verdicts(report).items() if verdict == "skipped"}, report["output"]
    assert all(told[fact]["seen"] for fact in skipped)
    assert verdicts(report)["name-case"] in ("holds", "refuted")
    assert verdicts(report)["fifo-rate"] != "skipped"
    after = picture(emulator)
    assert of_runs(after) == []
    assert after == before | {"roles": after["roles"]}


def test_reading_alone_changes_nothing_and_needs_no_more_than_reads(verification: Verification) -> None:
    statements = json.loads(RIGHTS.read_text())["Statement"]
    reads = [each for each in statements if each["Sid"] == "Reads"]
    keys = verification.env.make_user("reader", {"Version": "2012-10-17", "Statement": reads})
    before = picture(verification.env.emulator)
    report = verification.report("--without-cost", keys=keys)
    assert report["status"] == 0, report["output"]
    assert verdicts(report)["name-case"] in ("holds", "refuted")
    assert verdicts(report)["sshd-runs"] == "skipped"
    assert verdicts(report).keys() == register.read().keys()
    assert picture(verification.env.emulator) == before
    assert not list(verification.journals.glob("*"))


def test_it_begins_with_nothing_that_it_cannot_end(verification: Verification, tmp_path: Path) -> None:
    """What is wrong on the command line or on this machine costs nothing."""
    before = picture(verification.env.emulator)
    for words, sentence in (
        (["--only", "nonsense"], "there is no fact nonsense"),
        (["--mode", "ngrok", "--ngrok-token-file", os.devnull], "--mode ngrok needs a token"),
        (["--without-cost", "--only", "scenario"], "the scenario creates a stack and notebooks"),
        (["--dollars", "0.01"], "--dollars allows $0.01"),
        (["--parameter", "TagKey=ssh"], "--parameter TagKey is the run's own"),
        (["--parameter", "TagKey"], "is not of the form NAME=VALUE"),
        (["--stack", "nonsense"], "the stack nonsense cannot be read"),
        (["--ngrok-token-file", str(tmp_path / "none")], "cannot be read"),
    ):
        done = verification.run(*words)
        assert (done.returncode, sentence in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    verification.journals.parent.mkdir(exist_ok=True)
    verification.journals.rmdir()
    verification.journals.write_text("")
    try:
        done = verification.run()
        assert (done.returncode, "cannot be made" in done.stderr) == (2, True), done.stderr
    finally:
        verification.journals.unlink()
    assert picture(verification.env.emulator) == before


def test_the_journal_and_the_key_are_nobody_elses(verification: Verification) -> None:
    done = verification.run("--only", "filter-terms")
    assert done.returncode == 0, done.stdout + done.stderr
    assert stat.S_IMODE(verification.journals.stat().st_mode) == 0o700


def test_the_limit_of_time_ends_a_run_wherever_it_waits(verification: Verification) -> None:
    before = picture(verification.env.emulator)
    report = verification.report("--minutes", "0.05")
    assert (report["status"], report["stopped"]) == (1, "the limit of 0.05 minutes is reached (--minutes)")
    assert {"skipped"} <= set(verdicts(report).values())
    assert verdicts(report).keys() == register.read().keys()
    assert picture(verification.env.emulator) == before


def test_an_existing_stack_is_read_and_stays_as_it_is(verification: Verification) -> None:
    env = verification.env
    env.update()
    before = picture(env.emulator)
    report = verification.report("--stack", "notebook-ssh")
    assert [step["result"] for step in report["scenario"]] == ["ok", "ok"], report["output"]
    assert report["status"] == 0
    assert picture(env.emulator) == before
