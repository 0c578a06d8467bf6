"""The stop button: with `Paused`, everything closes within one report, scripts stay, and one change undoes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.api_env import ApiEnv, api_env
from support.bastion_env import BastionEnv, bastion_env
from support.builders import HOST_KEY, a_record, a_report
from support.notebook_env import OWNERS, notebook_env
from support.stack import WITH_BASTION, Stack, source

from notebook_ssh.controllers.lookup import ROUTES
from notebook_ssh.model.record import NotebookState
from notebook_ssh.model.spec import Mode, NotebookSpec

MARIO = NotebookSpec(modes=(Mode.NGROK,), users=("mario",), wake=True)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiEnv]:
    with api_env(monkeypatch) as env:
        monkeypatch.setenv("PAUSED", "true")
        yield env


def test_the_answer_to_the_next_report_says_off_and_why(api: ApiEnv) -> None:
    api.token("2abc_SECRET")
    api.central_key("mario", HOST_KEY)
    api.knows(a_record(spec=MARIO, report=a_report()))
    told = api.report({"sequence": 6, "worker": "0" * 64}).json
    assert (told["modes"], told["mode"], told["authorized_keys"], told["sync_after"]) == ([], "off", [], 300)
    assert not {"ngrok", "bastion", "worker"} & told.keys()
    assert told["problem"]["code"] == "paused"
    assert "2abc_SECRET" not in str(told)
    report = api.report_of("demo")
    assert report
    assert report.sequence == 6
    api.patch.setenv("PAUSED", "false")
    assert api.report({"sequence": 7}).json["modes"] == ["ngrok"]


@pytest.mark.parametrize("route", [path for _, path in ROUTES])
def test_lookups_are_refused_with_a_sentence_and_read_nothing(api: ApiEnv, route: str) -> None:
    api.knows(a_record(report=a_report()))
    api.since()
    said = api.get(route)
    assert (said.status, said.json["error"]) == (503, "paused")
    assert "Paused" in said.json["message"]
    assert not api.since()


def test_no_notebook_is_woken(api: ApiEnv) -> None:
    api.knows(a_record(spec=MARIO, state=NotebookState.STOPPED, started_at=None))
    api.since()
    said = api.start()
    assert (said.status, said.json["error"]) == (503, "paused")
    assert not api.since()


def test_scripts_are_left_alone_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    with notebook_env(monkeypatch) as env:
        env.lifecycle_config("with")
        env.lifecycle_config("without")
        env.notebook("old", "with", ssh="ngrok")
        env.settle()
        assert env.has_block("with")
        monkeypatch.setenv("PAUSED", "true")
        env.untag("old")
        env.notebook("new", "without", ssh="ngrok", ssh_restart="now")
        env.calls.clear()
        env.settle()
        assert env.has_block("with")
        assert env.on_start("without") == OWNERS
        assert not {each for each in env.calls if each.startswith(("update", "create", "delete", "stop", "start"))}
        monkeypatch.setenv("PAUSED", "false")
        for name in ("old", "new"):
            env.look(name)
        env.settle()
        assert env.on_start("with") == OWNERS
        assert env.has_block("without")


def test_the_stacks_rules_are_revoked_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with bastion_env(monkeypatch) as env:
        group, ours = opened(env)
        foreign = set(env.rules(group)) - set(ours)
        monkeypatch.setenv("PAUSED", "true")
        env.now += 60
        env.run()
        assert set(env.rules(group)) == foreign
        assert not env.route("box").open
        monkeypatch.setenv("PAUSED", "false")
        env.now += 60
        env.run()
        assert len(env.rules(group)) == len(foreign) + len(ours)


def opened(env: BastionEnv) -> tuple[str, set[str]]:
    group = env.group("notebooks")
    before = set(env.rules(group))
    env.notebook("box", group)
    env.run()
    assert env.route("box").open
    return group, set(env.rules(group)) - before


def test_the_change_itself_asks_for_the_bastions_rules() -> None:
    """After every function has its new setting, and not at the next sweep."""
    cleanup = source()["Resources"]["Cleanup"]
    assert cleanup["Properties"]["Paused"] == {"Ref": "Paused"}
    functions = {name for name, each in source()["Resources"].items() if each["Type"] == "AWS::Serverless::Function"}
    # Those of certificates and of the access log are not always there, and have no part in the rules.
    assert set(cleanup["DependsOn"]) == functions - {"Uninstall", "IssueCertificate", "ReadAuthority", "AccessApi"}
    variables = Stack(**WITH_BASTION, Paused="true").of_type("AWS::Lambda::Function").values()
    assert {each["Environment"]["Variables"]["PAUSED"] for each in variables} == {"true"}
