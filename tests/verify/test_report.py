"""The report: fit to be published, at most 100 columns wide, the same in text and JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st
from notebook_ssh_verify.findings import Evidence, Finding, Holds, Refuted, Skipped, Step, Undecided
from notebook_ssh_verify.ownership import Created, Kind
from notebook_ssh_verify.redaction import redact, shorten
from notebook_ssh_verify.register import Fact, parse
from notebook_ssh_verify.report import WIDTH, Report, as_json, as_text
from notebook_ssh_verify.resources import Left

FACT = Fact(
    "empty-hook", "an empty list clears a hook", "nobody says", "a script that does nothing is written", ("a.py",)
)
OTHER = FACT._replace(id="name-case")
CALL = Evidence("sagemaker:X {}", "400 ValidationException: no")
REPORT = Report(
    "1.0.0",
    "us-east-1, run k3j9x2mp",
    41.6,
    steps=(
        Step("tag", "the block is in"),
        Step("ssh", "", "Permission denied"),
        Step("again", "there is no path", skipped=True),
    ),
    findings=(
        Finding(FACT, Refuted("the hook is still there"), (CALL,)),
        Finding(OTHER, Holds("both find it")),
        Finding(OTHER._replace(id="fifo-rate"), Undecided("this machine is too slow")),
        Finding(OTHER._replace(id="imds-role"), Skipped("it needs a notebook")),
    ),
    stopped="the limit of 60 minutes is reached",
    left=(Left(Created(Kind.TABLE, "t"), "it has no tag", "aws dynamodb delete-table --table-name t"),),
    remains=("aws logs delete-log-stream",),
)

TEXT = """\
notebook-ssh 1.0.0: facts verified, us-east-1, run k3j9x2mp, in 42 min
It stopped early: the limit of 60 minutes is reached

Scenario
  ok      tag: the block is in
  FAILED  ssh: Permission denied
  skipped again: there is no path

Facts: 1 holds, 1 refuted, 1 undecided, 1 skipped

refuted   empty-hook
  expected  an empty list clears a hook
  seen      the hook is still there
  call      sagemaker:X {}
    answer  400 ValidationException: no
  concerns  a.py
  then      a script that does nothing is written

holds     name-case
  expected  an empty list clears a hook
  seen      both find it
  confirms  a.py

undecided fifo-rate
  expected  an empty list clears a hook
  why       this machine is too slow

skipped   imds-role
  expected  an empty list clears a hook
  why       it needs a notebook

Not deleted
  DynamoDB table t: it has no tag
      aws dynamodb delete-table --table-name t
      aws logs delete-log-stream
"""


def test_the_text() -> None:
    assert as_text(REPORT) == TEXT
    assert REPORT.failed


def test_the_json_says_the_same() -> None:
    told = json.loads(as_json(REPORT))
    assert [(each["id"], each["verdict"], each["seen"]) for each in told["facts"]] == [
        ("empty-hook", "refuted", "the hook is still there"),
        ("name-case", "holds", "both find it"),
        ("fifo-rate", "undecided", "this machine is too slow"),
        ("imds-role", "skipped", "it needs a notebook"),
    ]
    assert told["facts"][0]["evidence"] == [{"call": "sagemaker:X {}", "answer": "400 ValidationException: no"}]
    assert [each["result"] for each in told["scenario"]] == ["ok", "failed", "skipped"]
    assert told["left"][0]["command"] == "aws dynamodb delete-table --table-name t"


def test_a_run_without_a_problem_has_not_failed() -> None:
    good = Report("1", "here", 1, steps=(Step("a", "b"), Step("c", "d", skipped=True)))
    assert not good.failed
    assert "Not deleted" not in as_text(good)


SECRETS = "AKIAABCDEFGHIJKLMNOP", "210987654321", "10.1.2.3", "2abcNgrokTokenOfSomebody_123", "merger-with-acme"


@pytest.mark.parametrize(
    "text",
    [
        '{"AccessKeyId": "AKIAABCDEFGHIJKLMNOP"}',
        "arn:aws:iam::210987654321:role/x",
        "arn:aws:sts::210987654321:assumed-role/merger-with-acme/merger-with-acme is not authorized",
        "arn:aws:sagemaker:us-east-1:210987654321:notebook-instance/merger-with-acme",
        '{"NotebookInstances": [{"NotebookInstanceName": "merger-with-acme"}], "NameContains": "merger-with-acme"}',
        "host 10.1.2.3 port 22",
        "authtoken: 2abcNgrokTokenOfSomebody_123",
        '{"SecretString": "x", "token": "2abcNgrokTokenOfSomebody_123"}',
        "X-Amz-Security-Token=2abcNgrokTokenOfSomebody_123&X-Amz-Date=1",
    ],
)
def test_nothing_that_is_secret_is_told(text: str) -> None:
    finding = Finding(FACT, Holds(text), (Evidence(text, text),))
    told = Report("1", "here", 1, (Step("a", text),), (finding,))
    for output in (as_text(told), as_json(told)):
        assert not any(secret in output for secret in SECRETS)
    assert redact(text) == redact(redact(text))


@pytest.mark.parametrize(
    "text",
    [
        "secretsmanager:PutSecretValue {}",
        "an ngrok token (--ngrok-token-file)",
        "holds: secret",
        "role/nbssh-verify-a1-lab",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=400))
def test_any_text_keeps_the_report_readable(text: str) -> None:
    finding = Finding(FACT, Refuted(shorten(text)), (Evidence(shorten(text), shorten(text)),))
    told = Report("1", "here", 1, (Step("a", shorten(text)),), (finding,))
    assert all(len(line) <= WIDTH for line in as_text(told).splitlines())
    json.loads(as_json(told))
    assert len(shorten(text)) <= 300


def test_links_of_the_register_are_paths_of_the_project() -> None:
    page = "| `a-b` | it is so | see [page](x.md) | both | [`t`](../template.yaml), [n](notebook.md) |\n"
    (fact,) = parse(page)
    assert fact == Fact("a-b", "it is so", "see page", "both", ("template.yaml", "docs/notebook.md"))
