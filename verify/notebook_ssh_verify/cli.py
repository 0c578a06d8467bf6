"""The command line: what it will make, what that costs and needs, a question, the run, and its report."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Any

import botocore.session
from botocore.exceptions import BotoCoreError

from notebook_ssh_client import __version__
from notebook_ssh_verify import deployment, journal, register, report, run
from notebook_ssh_verify.account import Account, AwsError
from notebook_ssh_verify.builder import Settings
from notebook_ssh_verify.deployment import DeploymentError
from notebook_ssh_verify.experiments import ALL
from notebook_ssh_verify.findings import Step
from notebook_ssh_verify.journal import Journal, JournalError, Place
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.laptop import Laptop, release_folder
from notebook_ssh_verify.ownership import PREFIX, RUN_TAG, Run
from notebook_ssh_verify.plan import STACK, Plan, UnknownFactError, reading_run, whole_run
from notebook_ssh_verify.report import Report
from notebook_ssh_verify.resources import Left
from notebook_ssh_verify.run import RefusedError, VerificationRun

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_LEFT = 0, 1, 2, 3

EPILOG = """\
exit status: 0, the run got to its end (facts may be refuted: the report says which); 1, a step of the scenario
failed, or the run stopped early; 2, it did not begin; 3, something could not be deleted, and is listed.
What it does, step by step: docs/verify.md.
"""


class UsageError(Exception):
    """The run cannot begin; the message says why, and what to do."""


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="verify",
        description="Finds out on your AWS account which of the facts hold that could not be confirmed (docs/facts.md).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--stack", metavar="NAME", help="only read an existing stack; create and change nothing")
    made.add_argument("--without-cost", action="store_true", help="only read the account; create and change nothing")
    made.add_argument(
        "--only",
        metavar="FACT",
        action="append",
        default=[],
        help="this fact alone, or the scenario; repeat for others",
    )
    made.add_argument(
        "--mode",
        choices=("eice", "ngrok"),
        default="",
        help="how the scenario connects (default: what the account allows)",
    )
    made.add_argument("--clean", action="store_true", help="only delete what earlier runs left")
    made.add_argument("--list", action="store_true", help="list the facts, and how each is decided")
    made.add_argument("--rights", action="store_true", help="print an IAM policy with the rights that it needs")
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument(
        "--minutes", type=float, default=90, metavar="N", help="limit of time; then it deletes everything (90)"
    )
    made.add_argument("--dollars", type=float, default=1, metavar="N", help="limit of cost, as estimated (1)")
    made.add_argument(
        "--subnet", default="", metavar="ID", help="of the first notebook (default: one of the default VPC)"
    )
    made.add_argument(
        "--instance-type", default="ml.t3.medium", metavar="TYPE", help="of both notebooks (ml.t3.medium)"
    )
    made.add_argument("--ngrok-token-file", type=Path, metavar="FILE", help="with an ngrok token: ngrok is tried too")
    made.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the stack, such as PermissionsBoundary",
    )
    made.add_argument(
        "--event-seconds", type=float, default=180, metavar="N", help="an event that takes longer is not sent (180)"
    )
    made.add_argument("--region", metavar="REGION")
    made.add_argument("--profile", metavar="PROFILE")
    made.add_argument("--report", type=Path, metavar="FILE", help="write the report there as well")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the report there as JSON")
    return made


def main(words: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(words)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _main(options)
    except (UsageError, UnknownFactError, RefusedError, JournalError, register.RegisterError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (AwsError, DeploymentError, BotoCoreError) as error:
        print(
            f"verify: {error}; sign in (aws configure, aws sso login), or name --profile and --region", file=sys.stderr
        )
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("verify: interrupted; nothing was created", file=sys.stderr)
        return EXIT_FAILED


def _main(options: argparse.Namespace) -> int:
    facts = register.read()
    if options.list:
        for experiment in ALL:
            print(f"{experiment.fact:<22} {'reads' if experiment.only_reads else 'creates'}: {experiment.how}")
        return EXIT_OK
    only_reads = bool(options.stack) or options.without_cost
    plan = (reading_run if only_reads else whole_run)(ALL, options.only)
    account, place = _sign_in(options)
    if options.rights:
        print(
            (files("notebook_ssh_verify") / "rights.json").read_text("utf-8").replace("ACCOUNT", place.account), end=""
        )
        return EXIT_OK
    folder = journal.folder(os.environ)
    left = run.clean_up_earlier(account, list(journal.unfinished(folder)), place, _say)
    if left or options.clean:
        return _tell_left(left)
    if only_reads:
        return _read(account, place, plan, facts, options)
    settings = _settings(options)
    _show(plan, settings, place, options)
    if not options.yes and not _agrees():
        print("Nothing was created.")
        return EXIT_USAGE
    this = run.new_run(time.time())
    kept = Journal.begin(folder, this, place) if plan.creates else None
    lab = Lab(
        account,
        this,
        kept,
        event_limit_s=settings.event_limit_s,
        ngrok_token=settings.ngrok_token,
        environ=os.environ,
    )
    began = time.monotonic()
    _say(f"run {this.id}; its journal is {kept.path if kept else 'not needed'}")
    result = VerificationRun(lab, plan, facts, settings, _say).execute()
    told = Report(
        __version__,
        f"{place.region}, run {this.id}",
        (time.monotonic() - began) / 60,
        tuple(result.steps),
        tuple(result.findings),
        result.stopped,
        tuple(result.left),
        tuple(result.remains),
    )
    return _tell(told, options)


def _sign_in(options: argparse.Namespace) -> tuple[Account, Place]:
    """Return the account and the place that the user is signed in to."""
    session = botocore.session.Session(profile=options.profile)
    region = options.region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region:
        raise UsageError("set --region, or the region of the AWS command line (aws configure)")
    if not session.get_credentials():
        raise UsageError("there are no AWS credentials; run aws configure or aws sso login, or name --profile")
    account = Account(session, region)
    identity = account.call("sts", "get_caller_identity")
    return account, Place(identity["Account"], region, os.environ.get("AWS_ENDPOINT_URL", ""))


def _settings(options: argparse.Namespace) -> Settings:
    token = ""
    if options.ngrok_token_file:
        try:
            token = options.ngrok_token_file.read_text("utf-8").strip()
        except OSError as error:
            raise UsageError(f"{options.ngrok_token_file} cannot be read: {error.strerror}") from error
    parameters = {}
    for word in options.parameter:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--parameter {word} is not of the form NAME=VALUE")
        if name in ("TagKey", "DefaultLifecycleConfig"):
            raise UsageError(f"--parameter {name} is the run's own: it keeps the stack off every other notebook")
        parameters[name] = value
    if options.mode == "ngrok" and not token:
        raise UsageError("--mode ngrok needs a token: --ngrok-token-file FILE")
    return Settings(
        options.minutes,
        options.subnet,
        options.instance_type,
        token,
        parameters,
        options.event_seconds,
        release_folder(os.environ),
        options.mode,
    )


def _show(plan: Plan, settings: Settings, place: Place, options: argparse.Namespace) -> None:
    """Print what the run will do. Raises UsageError if that is more than the user allows, or cannot be done."""
    cost = plan.dollars(settings.minutes)
    if STACK in plan.creates:
        missing = deployment.missing_files(settings.release)
        if missing:
            raise UsageError(
                f"{settings.release} has no {missing[0]}; run make verify in a checkout, or verify.sh of a release"
            )
    print(f"In account {place.account}, region {place.region}, this run creates, and deletes again:")
    for item in plan.creates:
        print(f"  - {item.what}")
    if not plan.creates:
        print("  nothing")
    print(
        f"Their names begin with {PREFIX} and they have the tag {RUN_TAG}. Nothing else is changed: the stack's tag key"
    )
    print("is the run's own, so it acts on no notebook of yours.")
    print(
        f"It costs about ${cost:.2f}, and takes about an hour; after {settings.minutes:.0f} minutes it deletes everything."
    )
    print("It needs the rights that --rights prints. It decides:")
    for experiment in plan.experiments:
        print(f"  {experiment.fact:<22} {experiment.how}")
    if cost > options.dollars:
        raise UsageError(f"that costs up to ${cost:.2f}, and --dollars allows ${options.dollars:.2f}")


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("standard input is no terminal, so nobody can be asked; add --yes")
    try:
        return input("Begin? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


# ---- reading alone -----------------------------------------------------------------------------


def _read(
    account: Account, place: Place, plan: Plan, facts: dict[str, register.Fact], options: argparse.Namespace
) -> int:
    """Read the account, and a stack if one is named."""
    lab = Lab(account, Run("reading0", int(time.time())), event_limit_s=options.event_seconds, environ=os.environ)
    began = time.monotonic()
    steps: list[Step] = []
    if options.stack:
        lab.stack_name = options.stack
        try:
            lab.stack = deployment.outputs_of(account, options.stack)
        except (AwsError, DeploymentError) as error:
            raise UsageError(f"the stack {options.stack} cannot be read: {error}") from error
        with Laptop(account, os.environ) as laptop:
            steps = list(_health(lab, laptop))
    result = VerificationRun(lab, plan, facts, Settings(options.minutes), _say).execute()
    told = Report(
        __version__,
        f"{place.region}, reading alone" + (f", stack {options.stack}" if options.stack else ""),
        (time.monotonic() - began) / 60,
        tuple(steps),
        tuple(result.findings),
        result.stopped,
    )
    return _tell(told, options)


def _health(lab: Lab, laptop: Laptop) -> Iterable[Step]:
    """What a look at an existing stack says."""
    yield Step("the stack is complete", f"{len(lab.stack)} outputs")
    what = "its API answers"
    if "curl" in laptop.missing:
        yield Step(what, "curl is not on this machine", skipped=True)
        return
    answer = laptop.curl(f"{lab.stack.get('ApiUrl', '')}/notebooks")
    told: Any = answer.json()
    if answer.status != 200 or not isinstance(told, list):
        yield Step(what, "", f"{answer.status}: {answer.body[:200]}")
        return
    statuses = Counter(str(each.get("status")) for each in told)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    yield Step(what, f"{sum(statuses.values())} notebooks{': ' + counts if counts else ''}")


# ---- telling -----------------------------------------------------------------------------------


def _tell(told: Report, options: argparse.Namespace) -> int:
    text = report.as_text(told)
    for path, content in ((options.report, text), (options.json, report.as_json(told))):
        if path:
            try:
                path.write_text(content, "utf-8")
            except OSError as error:
                print(f"verify: {path} cannot be written: {error.strerror}; the report follows", file=sys.stderr)
    print()
    print(text, end="")
    print(
        "\nThe report is made to be published: account ids, keys and addresses are replaced. Please add it to an issue."
    )
    return EXIT_LEFT if told.left else EXIT_FAILED if told.failed else EXIT_OK


def _tell_left(left: Sequence[Left]) -> int:
    for each in left:
        print(f"not deleted: {each.created.kind.value} {each.created.name}: {each.why}\n    {each.command}")
    if not left:
        print("Nothing of an earlier run is left.")
    return EXIT_LEFT if left else EXIT_OK


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt
