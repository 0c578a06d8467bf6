"""A diagnosis as text for a terminal and as JSON (docs/api.md)."""

from __future__ import annotations

from typing import Any

from notebook_ssh.http_api.views import status_json
from notebook_ssh.model.checks import Diagnosis
from notebook_ssh.model.text import iso_time, printable, printable_line


def doctor_text(diagnosis: Diagnosis) -> str:
    """Return the diagnosis for a terminal: a line for each check, and below it the remedy, if there is one."""
    status = diagnosis.status
    since = f" since {iso_time(status.since)}" if status.since is not None else ""
    lines = [f"{diagnosis.name}: {status.code}{since}"]
    for check in diagnosis.checks:
        since = f" (since {iso_time(check.since)})" if check.since is not None else ""
        lines.append(f"  {check.state:<8}{check.name:<14} {check.reason}{since}")
        if check.remedy:
            lines.append(f"{'':25}→ {check.remedy}")
    lines.append(f"Next: {status.next_step}")
    return "\n".join(printable_line(line) for line in lines)


def doctor_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as JSON: the status, and `checks` with the same members for each."""
    return {
        "name": diagnosis.name,
        **status_json(diagnosis.status),
        "checks": [
            {
                "check": check.name,
                "result": str(check.state),
                "since": None if check.since is None else iso_time(check.since),
                "reason": printable(check.reason),
                "remedy": printable(check.remedy),
            }
            for check in diagnosis.checks
        ],
    }
