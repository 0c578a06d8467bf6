"""Says how large the built functions and layers are when zipped, as Lambda gets them.

    python3 packaging/size.py [.aws-sam/build]

Folders with equal content are uploaded once, and counted once.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from archive import zipped

LIMIT = 12 * 1024 * 1024
"""What functions and layers together may weigh, in bytes, bytecode included (docs/performance.md)."""


def sizes(build: Path) -> dict[str, int]:
    """Bytes of each distinct artifact in `build`, under the names of the resources that use it."""
    users: dict[str, list[str]] = {}
    weight: dict[str, int] = {}
    for folder in sorted(path for path in build.iterdir() if path.is_dir()):
        content = zipped(folder)
        digest = hashlib.sha256(content).hexdigest()
        users.setdefault(digest, []).append(folder.name)
        weight[digest] = len(content)
    return {", ".join(names): weight[digest] for digest, names in users.items()}


def main() -> int:
    """Print the table; exit status 1 above the limit."""
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ".aws-sam/build")
    if not build.is_dir():
        print(f"size: there is no {build}; run `make build` first", file=sys.stderr)
        return 2
    found = sizes(build)
    for names, size in found.items():
        print(f"{size / 1024:10.1f} KiB  {names}")
    total = sum(found.values())
    print(f"{total / 1024:10.1f} KiB  in all; at most {LIMIT / 1024:.0f}")
    return 0 if total <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
