"""The report of a run, as text for a bug report and as JSON for programs. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, assert_never

from notebook_ssh_verify.findings import Finding, Holds, Refuted, Skipped, Step, Undecided, Verdict
from notebook_ssh_verify.redaction import redact
from notebook_ssh_verify.resources import Left

WIDTH = 100


class Report(NamedTuple):
    """What a run found out.

    version: of the product. where: account, region and run, in words. minutes: how long it took. stopped: why it did
    not get to its end. left: what could not be deleted. streams: commands for logs that carry no tag.
    """

    version: str
    where: str
    minutes: float
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    stopped: str | None = None
    left: tuple[Left, ...] = ()
    remains: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a step of the scenario failed, or the run did not get to its end."""
        return self.stopped is not None or any(step.problem for step in self.steps)


def word(verdict: Verdict) -> str:
    """Return the verdict in one word."""
    match verdict:
        case Holds():
            return "holds"
        case Refuted():
            return "refuted"
        case Undecided():
            return "undecided"
        case Skipped():
            return "skipped"
        case _:
            assert_never(verdict)


def reason(verdict: Verdict) -> str:
    """Return the sentence of a verdict."""
    return verdict.seen if isinstance(verdict, Holds | Refuted) else verdict.why


def as_text(report: Report) -> str:
    """Return the report as text of at most 100 columns, for a bug report: account, keys and addresses are replaced."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"notebook-ssh {report.version}: facts verified, {report.where}, in {report.minutes:.0f} min"
    if report.stopped:
        yield from _wrapped("It stopped early: ", report.stopped)
    if report.steps:
        yield ""
        yield "Scenario"
        for step in report.steps:
            yield from _wrapped(f"  {_mark(step):<8}", f"{step.what}: {step.problem or step.detail}")
    if report.findings:
        counts = summary(report.findings)
        yield ""
        yield "Facts: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        for finding in report.findings:
            yield from _of(finding)
    if report.left or report.remains:
        yield ""
        yield "Not deleted"
        for left in report.left:
            yield from _wrapped("  ", f"{left.created.kind.value} {left.created.name}: {left.why}")
            yield f"      {redact(left.command)}"
        for line in report.remains:
            yield f"      {redact(line)}"


def _mark(step: Step) -> str:
    return "skipped" if step.skipped else "FAILED" if step.problem else "ok"


def _of(finding: Finding) -> Iterator[str]:
    yield ""
    yield f"{word(finding.verdict):<10}{finding.fact.id}"
    yield from _wrapped("  expected  ", finding.fact.sentence)
    label = "seen" if isinstance(finding.verdict, Holds | Refuted) else "why"
    yield from _wrapped(f"  {label:<10}", reason(finding.verdict))
    for evidence in finding.evidence:
        yield from _wrapped("  call      ", evidence.call)
        yield from _wrapped("    answer  ", evidence.answer)
    if isinstance(finding.verdict, Holds | Refuted):
        concerns = "confirms" if isinstance(finding.verdict, Holds) else "concerns"
        yield from _wrapped(f"  {concerns:<10}", ", ".join(finding.fact.where))
    if isinstance(finding.verdict, Refuted):
        yield from _wrapped("  then      ", finding.fact.either)


def _wrapped(label: str, text: str) -> Iterator[str]:
    # Before it is wrapped, since a secret on two lines is found by nobody but its finder.
    lines = textwrap.wrap(redact(text), WIDTH - len(label), break_long_words=True, break_on_hyphens=False) or [""]
    yield label + lines[0]
    yield from (" " * len(label) + line for line in lines[1:])


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """Return how many findings there are of each verdict."""
    words = [word(each.verdict) for each in findings]
    return {what: words.count(what) for what in ("holds", "refuted", "undecided", "skipped")}


def as_json(report: Report) -> str:
    """Return the report as JSON, with the same replaced as in the text."""
    told: dict[str, Any] = {
        "version": report.version,
        "where": report.where,
        "minutes": round(report.minutes, 1),
        "stopped": report.stopped,
        "scenario": [
            {"step": step.what, "result": _mark(step).lower(), "detail": step.problem or step.detail}
            for step in report.steps
        ],
        "facts": [
            {
                "id": each.fact.id,
                "verdict": word(each.verdict),
                "expected": each.fact.sentence,
                "seen": reason(each.verdict),
                "evidence": [evidence._asdict() for evidence in each.evidence],
                "where": list(each.fact.where),
                "either way": each.fact.either,
            }
            for each in report.findings
        ],
        "left": [
            {"kind": left.created.kind.value, "name": left.created.name, "why": left.why, "command": left.command}
            for left in report.left
        ],
        "remains": list(report.remains),
    }
    return json.dumps(_redacted(told), indent=2, ensure_ascii=False) + "\n"


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case dict():
            return {name: _redacted(each) for name, each in value.items()}
        case list():
            return [_redacted(each) for each in value]
        case _:
            return value
