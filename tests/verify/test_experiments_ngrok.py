"""The experiments on ngrok: what they decide, and against the stand-in for ngrok's agent and its download."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from notebook_ssh_verify.account import Account
from notebook_ssh_verify.experiments.ngrok import (
    DOWNLOAD_ENV_VAR,
    DOWNLOAD_URL,
    EXPERIMENTS,
    Answer,
    Web,
    decide_merge,
    decide_redirect,
    download_url,
    web_address,
    write_files,
)
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import Run
from support.stack import PROJECT

from notebook.ngrok_cloud import NgrokCloud

MIRROR = "https://mirror.example.com/ngrok-{arch}.tgz"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Answer(200), Holds("the download address answers 200 itself")),
        (
            Answer(302, "https://bin.ngrok.com"),
            Refuted(
                "the download address redirects (302) to https://bin.ngrok.com, one of ngrok's own, which the agent follows"
            ),
        ),
        (
            Answer(301, "https://ngrok.com.example.org"),
            Refuted(
                "the download address redirects (301) to https://ngrok.com.example.org, which the agent does not follow"
            ),
        ),
        (
            Answer(307, "http://bin.ngrok.com"),
            Refuted("the download address redirects (307) to http://bin.ngrok.com, which the agent does not follow"),
        ),
        (
            Answer(308),
            Refuted("the download address redirects (308) to nowhere, which the agent does not follow"),
        ),
        (Answer(403), Undecided("the download address answers 403")),
        (Answer(0, error="timed out"), Undecided("the download address did not answer: timed out")),
    ],
)
def test_a_redirect_refutes_that_the_address_answers_itself(seen: Answer, expected: Decision) -> None:
    assert decide_redirect(seen) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            Web("127.0.0.1:4711", "127.0.0.1:4711"),
            Holds("a key below agent in the first file counts, though the second file has an agent as well"),
        ),
        (
            Web("127.0.0.1:4711", "127.0.0.1:4040"),
            Refuted("the agent of the second file takes the place of the first file's"),
        ),
        (
            Web("127.0.0.1:4711", "", "ERROR: no"),
            Undecided("ngrok's agent did not say where its local API is: ERROR: no"),
        ),
    ],
)
def test_two_files_merge_if_the_first_ones_key_counts(seen: Web, expected: Decision) -> None:
    assert decide_merge(seen) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"addr":"127.0.0.1:4040","lvl":"info","msg":"starting web service","obj":"web"}', "127.0.0.1:4040"),
        ('{"addr":"127.0.0.1:4040","msg":"started tunnel"}', ""),
        ('{"msg":"starting web service"}', ""),
        ('["starting web service"]', ""),
        ("ERROR: bad", ""),
    ],
)
def test_one_line_of_the_log_has_the_address(line: str, expected: str) -> None:
    assert web_address(line) == expected


def test_the_address_is_the_products_unless_another_is_set() -> None:
    program = (PROJECT / "layers/notebook_agent/worker/ngrok_program.py").read_text()
    assert f'DOWNLOAD_URL = "{DOWNLOAD_URL}"' in program
    assert download_url({}, "aarch64") == DOWNLOAD_URL.replace("{arch}", "arm64")
    assert download_url({DOWNLOAD_ENV_VAR: MIRROR}, "x86_64") == "https://mirror.example.com/ngrok-amd64.tgz"


def test_the_token_is_in_a_file_that_other_users_cannot_read(tmp_path: Path) -> None:
    first, second = (Path(path) for path in write_files(tmp_path, "127.0.0.1:4711", 'a"b'))
    assert "authtoken" not in first.read_text()
    assert json.dumps('a"b') in second.read_text()
    assert second.stat().st_mode & 0o077 == 0


# ---- against the stand-ins -------------------------------------------------------------------------


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[NgrokCloud]:
    (tmp_path / "cloud").mkdir()
    cloud = NgrokCloud(tmp_path / "cloud", sys.executable)
    yield cloud
    cloud.close()


def lab(cloud: NgrokCloud, token: str = "") -> Lab:
    environ = {DOWNLOAD_ENV_VAR: cloud.download}
    account = Account(botocore.session.Session(), "us-east-1")
    return Lab(account, Run("ab12cd34", 0), ngrok_token=token or cloud.token, environ=environ)


def decide(lab: Lab, fact: str) -> Decision:
    return next(each for each in EXPERIMENTS if each.fact == fact).run(lab)


@pytest.mark.parametrize(
    ("fact", "answer", "expected"),
    [
        ("ngrok-redirect", "direct", Holds),
        ("ngrok-redirect", "redirects", Refuted),
        ("ngrok-merge", "merges", Holds),
        ("ngrok-merge", "replaces", Refuted),
    ],
)
def test_an_experiment_finds_the_answer_that_is_given(
    cloud: NgrokCloud, fact: str, answer: str, expected: type[Decision]
) -> None:
    (cloud.home / "answers.json").write_text(json.dumps({fact: answer}))
    decision = decide(lab(cloud), fact)
    assert isinstance(decision, expected), decision


def test_the_evidence_has_no_token(cloud: NgrokCloud) -> None:
    tried = lab(cloud)
    decide(tried, "ngrok-merge")
    (evidence,) = tried.account.take_evidence()
    assert cloud.token not in repr(evidence)
    assert evidence.call == "ngrok start --none --config FIRST,SECOND"


def test_an_agent_that_cannot_be_downloaded_decides_nothing(cloud: NgrokCloud) -> None:
    shutil.rmtree(cloud.home)
    cloud.close()
    for fact in ("ngrok-redirect", "ngrok-merge"):
        decision = decide(lab(cloud, "token"), fact)
        assert isinstance(decision, Undecided), decision
