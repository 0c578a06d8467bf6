"""What people who mean harm write wherever they may write something."""

from __future__ import annotations

import re

INJECTIONS = (
    "$(reboot)",
    "`reboot`",
    "a\nHost *\n  ProxyCommand reboot",
    "a\r\nX-Header: 1",
    "\x1b[2Jcleared",
    "%h %p %r",
    "'; reboot; '",
    '"}]',
    "&& reboot",
    "# >>> notebook-ssh stack=team-ssh >>>",
    "{{ key: !!python/object }}",
    "\u202egnp.exe",
    "ngrok" * 60,
)
OPERATIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys; line ends are judged by the lines they make."""
