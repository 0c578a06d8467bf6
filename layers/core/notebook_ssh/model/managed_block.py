"""The lifecycle script as bytes: put the block in, take it out, leave the owner's bytes alone.

A script with blocks reads

    #!/bin/bash                                   the shebang line, if there is one
    # >>> notebook-ssh stack=a … >>> …            the block of stack a
    …
    # <<< notebook-ssh stack=a <<<
    # >>> notebook-ssh stack=b … >>> …            the block of stack b, …
    …
    # <<< notebook-ssh stack=b <<<
    set -e                                        everything else of the owner's

What is recognised as a block, exactly:

1. *On top*: an opening line directly after the shebang line (or at the first byte when there is none), or
   directly after another block on top, down to the first closing line of the same stack.
2. *Moved*: the owner wrote lines above it. It counts when its sum is right, there is no other of that stack,
   and the owner's lines above it can hold no open here-document or quotation.

Everything else that looks like a marker is the owner's text, in a here-document for example, and stays.
Doubtful cases are `Damaged`: nothing is changed, and a person is told which line to look at.

Whatever cannot be seen from the bytes afterwards (was there a script at all? did its only line end?) is
kept in the opening line, by every stack alike, so that stacks can come and go in any order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from notebook_ssh.errors import Problem

LIMIT = 12_288
"""Bytes of one script. SageMaker takes 16,384 characters of base64 (NotebookInstanceLifecycleHook,
`Content`), which are 12,288 bytes; whether it counts base64 or bytes is UNCONFIRMED, and both end here."""

SHEBANG = b"#!/bin/sh\n"
"""The first line given to a script that had no byte of its own. Never change it: strip compares with it."""

STACK = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
"""Names of CloudFormation stacks (CreateStack, `StackName`)."""
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
FINGERPRINT = re.compile(r"[0-9a-f]{12}")

SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "zsh"})
"""Interpreters under which the block's frame was run (tests/agent/test_block_frame.py)."""


class Original(StrEnum):
    """How the owner's script was, where the bytes around the blocks cannot tell.

    ABSENT: there was none. EMPTY: it had no byte. UNENDED: its only line, the shebang, had no line end.
    WHOLE: everything of it is still there to be seen.
    """

    ABSENT = "absent"
    EMPTY = "empty"
    NO_TRAILING_NEWLINE = "unended"
    COMPLETE = "whole"


def fingerprint(content: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of `content`: against accidents, not against malice."""
    return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Block:
    """What a stack puts into a script.

    id: fingerprint of the body's source, before packing. The same id means the same block, even where
    another version of a compression library packed it into other bytes.
    body: shell text that ends with a line end and holds no marker line, or what makes it when it is needed, which is when
        a script is written: packing is a fifth of a function's start.
    Raises ValueError for a part that would make an unreadable block: a fault of the stack, not of a person.
    """

    stack: str
    version: str
    id: str
    body: bytes | Callable[[], bytes] = field(compare=False)

    def __post_init__(self) -> None:
        for name, value, pattern in (
            ("stack", self.stack, STACK),
            ("version", self.version, VERSION),
            ("id", self.id, FINGERPRINT),
        ):
            if not pattern.fullmatch(value):
                raise ValueError(f"the block's {name} is {value!r}, which is not {pattern.pattern}")

    def text(self) -> bytes:
        """The body's bytes. Raises ValueError when they could not be found again in a script."""
        body = self.body if isinstance(self.body, bytes) else self.body()
        if not body.endswith(b"\n"):
            raise ValueError("the block's body does not end with a line end")
        if _ANY_MARKER.search(body):
            raise ValueError("the block's body holds a marker line")
        return body

    def render(self, original: Original) -> bytes:
        """The block's bytes: opening line, body, closing line."""
        body = self.text()
        opening = (
            f"# >>> notebook-ssh stack={self.stack} version={self.version} id={self.id} "
            f"sum={fingerprint(body)} original={original} >>> managed: edits inside are undone\n"
        )
        return opening.encode() + body + f"# <<< notebook-ssh stack={self.stack} <<<\n".encode()


@dataclass(frozen=True, slots=True)
class Inserted:
    """The script with the block in it. changed: it is not the script that was given."""

    script: bytes
    changed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The script stays as it is, and why."""

    problem: Problem


@dataclass(frozen=True, slots=True)
class NoBlock:
    """The script holds no block of this stack. owner: the script as given."""

    owner: bytes | None


@dataclass(frozen=True, slots=True)
class Present:
    """The script holds the stack's block.

    intact: nobody edited between the markers. on_top: it is where it belongs.
    owner: the script without this stack's block; None when there was no script before the block.
    """

    version: str
    id: str
    intact: bool
    on_top: bool
    owner: bytes | None


@dataclass(frozen=True, slots=True)
class Damaged:
    """Nobody can tell safely which bytes are the block. owner: the script as given."""

    problem: Problem
    owner: bytes | None


Inspection = NoBlock | Present | Damaged


def inspect(script: bytes | None, stack: str) -> Inspection:
    """What `script` holds of `stack`, by the rules at the top of this module."""
    if script is None:
        return NoBlock(owner=None)
    try:
        found = _own_block(script, stack)
    except _DamagedError as damage:
        return Damaged(problem=damage.problem, owner=script)
    if found is None:
        return NoBlock(owner=script)
    return Present(
        version=found.version,
        id=found.id,
        intact=found.intact,
        on_top=found in _blocks_on_top(script),
        owner=_as_it_was(found.cut_from(script), found.original),
    )


def remove_block(script: bytes | None, stack: str) -> bytes | None:
    """`script` without the block of `stack`: for any `x` without one, `remove_block(insert_block(x)) == x`.

    None when there was no script before the block (whether SageMaker accepts an empty `OnStart` is
    UNCONFIRMED; the adapter that writes it knows both ways). A damaged script comes back as it is:
    ask `inspect` first where a person must be told.
    """
    return inspect(script, stack).owner


def insert_block(script: bytes | None, block: Block) -> Inserted | Refused:
    """`script` with `block` on top, in the place of this stack's former block if there is one.

    The owner's bytes and other stacks' blocks stay as they are. The same block again changes nothing.
    Refused, with nothing changed: `config-not-shell`, `block-damaged`, `config-too-large`.
    """
    interpreter = _foreign_interpreter(script or b"")
    if interpreter is not None:
        return Refused(
            Problem(
                "config-not-shell",
                f"The on-start script's first line names {interpreter!r}, and the block is shell text that needs "
                f"one of {', '.join(sorted(SHELLS))}: start the script in a shell and call {interpreter!r} from there.",
            )
        )
    try:
        found = _own_block(script or b"", block.stack)
    except _DamagedError as damage:
        return Refused(damage.problem)
    on_top = found is not None and found in _blocks_on_top(script or b"")
    if found and on_top and found.intact and (found.id, found.version) == (block.id, block.version):
        return Inserted(script=script or b"", changed=False)

    rendered = block.render(_original(script, found))
    if script and found and on_top:
        whole = script[: found.start] + rendered + script[found.end :]
    else:
        whole = _put_on_top(found.cut_from(script) if script and found else script, rendered)
    if len(whole) > LIMIT:
        return Refused(_too_large(len(whole), len(rendered)))
    return Inserted(script=whole, changed=True)


@dataclass(frozen=True, slots=True)
class _Found:
    """One block in a script, from the first byte of its opening line to the end of its closing line."""

    start: int
    end: int
    stack: str
    version: str
    id: str
    original: Original
    intact: bool

    def cut_from(self, script: bytes) -> bytes:
        return script[: self.start] + script[self.end :]

    def covers(self, place: int) -> bool:
        return self.start <= place < self.end


class _DamagedError(Exception):
    """Which bytes are the block is in doubt."""

    def __init__(self, script: bytes, place: int, what: str, stack: str) -> None:
        line = script.count(b"\n", 0, place) + 1
        self.problem = Problem(
            "block-damaged",
            f"The on-start script is left as it is, because in line {line} {what}: delete every line from "
            f"`# >>> notebook-ssh stack={stack} …` to `# <<< notebook-ssh stack={stack} <<<`, and both of them.",
        )


_ANY_MARKER = re.compile(rb"^# (?:>>>|<<<) notebook-ssh\b", re.MULTILINE)
_ANY_OPENING = re.compile(rb"^# >>> notebook-ssh\b", re.MULTILINE)
_OPENING = re.compile(
    rb"^# >>> notebook-ssh stack=(?P<stack>[A-Za-z][A-Za-z0-9-]*) version=(?P<version>[0-9A-Za-z.+-]+)"
    rb" id=(?P<id>[0-9a-f]{12}) sum=(?P<sum>[0-9a-f]{12}) original=(?P<original>absent|empty|unended|whole)"
    rb" >>>[^\n]*(?:\n|\Z)",
    re.MULTILINE,
)


def _closing(stack: str) -> re.Pattern[bytes]:
    # Blanks and carriage returns at the end are forgiven: editors on Windows add them to every line.
    return re.compile(rb"^# <<< notebook-ssh stack=%b <<<[ \t\r]*(?:\n|\Z)" % stack.encode(), re.MULTILINE)


def _block_at(script: bytes, place: int) -> _Found | None:
    """The block whose opening line begins at `place`; None without one, or without an end of its own."""
    opening = _OPENING.match(script, place)
    if not opening:
        return None
    stack = opening["stack"].decode()
    closing = _closing(stack).search(script, opening.end())
    if not closing or _ANY_OPENING.search(script, opening.end(), closing.start()):
        return None
    return _Found(
        start=place,
        end=closing.end(),
        stack=stack,
        version=opening["version"].decode(),
        id=opening["id"].decode(),
        original=Original(opening["original"].decode()),
        intact=fingerprint(script[opening.end() : closing.start()]) == opening["sum"].decode(),
    )


def _top(script: bytes) -> int:
    """Where blocks belong: the first byte after the shebang line, or 0 without one."""
    if not script.startswith(b"#!"):
        return 0
    return script.find(b"\n") + 1 or len(script)


def _blocks_on_top(script: bytes) -> list[_Found]:
    blocks = []
    place = _top(script)
    while block := _block_at(script, place):
        blocks.append(block)
        place = block.end
    return blocks


def _blocks(script: bytes) -> list[_Found]:
    """All blocks on top, and further down those whose sum is right."""
    blocks = _blocks_on_top(script)
    below = blocks[-1].end if blocks else _top(script)
    for opening in _OPENING.finditer(script, below):
        block = _block_at(script, opening.start())
        if block and block.intact:
            blocks.append(block)
    return blocks


def _own_block(script: bytes, stack: str) -> _Found | None:
    """The one block of `stack`. Raises _DamagedError where bytes of the owner's could be at stake."""
    blocks = _blocks(script)
    own = [block for block in blocks if block.stack == stack]
    if len(own) > 1:
        raise _DamagedError(script, own[1].start, "there is a second block of this stack", stack)
    if own and own[0].start != _top(script) and not _plain(script, own[0].start, blocks):
        raise _DamagedError(script, own[0].start, "the block may be part of a here-document or a quoted text", stack)
    marker = re.compile(rb"^# (?:>>>|<<<) notebook-ssh stack=%b(?![A-Za-z0-9-])" % stack.encode(), re.MULTILINE)
    for stray in marker.finditer(script):
        if not any(block.covers(stray.start()) for block in own) and _plain(script, stray.start(), blocks):
            raise _DamagedError(script, stray.start(), "there is a marker line that belongs to no block", stack)
    return own[0] if own else None


def _plain(script: bytes, place: int, blocks: list[_Found]) -> bool:
    """No here-document, quotation or continued line of the owner's can be open at `place`.

    Careful rather than clever: `<<` anywhere above, or an odd number of quotation marks outside of comment
    lines, is enough to say no.
    """
    above = bytearray()
    start = 0
    for block in blocks:
        if block.end <= place:
            above += script[start : block.start]
            start = block.end
    above += script[start:place]
    code = [line for line in bytes(above).splitlines() if not line.lstrip().startswith(b"#")]
    text = b"\n".join(code)
    marks = (text.count(block_ref) % 2 for block_ref in (b"'", b'"', b"`"))
    return b"<<" not in text and not any(marks) and not text.endswith(b"\\")


def _as_it_was(rest: bytes, original: Original) -> bytes | None:
    """The owner's script, given what is left of it without blocks: `original` counts while it can be true."""
    match original:
        case Original.ABSENT if rest == SHEBANG:
            return None
        case Original.EMPTY if rest == SHEBANG:
            return b""
        case Original.NO_TRAILING_NEWLINE if rest.startswith(b"#!") and rest.find(b"\n") == len(rest) - 1:
            return rest[:-1]
        case _:
            return rest


def _original(script: bytes | None, own: _Found | None) -> Original:
    """What the new block must remember: what the blocks that are there remember, while it can be true."""
    if script is None:
        return Original.ABSENT
    if not script:
        return Original.EMPTY
    blocks = _blocks(script)
    bare = script
    for block in reversed(blocks):
        bare = block.cut_from(bare)
    for block in [own, *blocks] if own else blocks:
        if _as_it_was(bare, block.original) != bare:
            return block.original
    return (
        Original.NO_TRAILING_NEWLINE
        if not blocks and script.startswith(b"#!") and b"\n" not in script
        else Original.COMPLETE
    )


def _put_on_top(script: bytes | None, rendered: bytes) -> bytes:
    if not script:
        return SHEBANG + rendered
    top = _top(script)
    shebang = script[:top]
    if shebang and not shebang.endswith(b"\n"):
        shebang += b"\n"
    return shebang + rendered + script[top:]


def _too_large(size: int, block: int) -> Problem:
    owners = size - block
    return Problem(
        "config-too-large",
        f"The on-start script has {owners:,} bytes and the block {block:,}, together {size:,}; the limit is {LIMIT:,} "
        f"bytes, {size - LIMIT:,} less: shorten the script, or move a part of it to a file that it calls.",
    )


def _foreign_interpreter(script: bytes) -> str | None:
    """The interpreter named by the first line when it is no shell that we know; None when all is well.

    A script without a shebang line is run by a shell (execve(2) fails with ENOEXEC, and shells then run it).
    """
    first = script.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return None
    words = first[2:].decode("utf-8", "backslashreplace").rstrip("\r").replace("\t", " ").split(" ")
    named = list(_program([word for word in words if word]))
    return None if named and named[0].rpartition("/")[2] in SHELLS else " ".join(named[:1]) or "nothing"


def _program(words: list[str]) -> list[str]:
    """`words` of a shebang line without what stands before the shell: `env` with its options, `busybox`."""
    if not words:
        return []
    match words[0].rpartition("/")[2]:
        case "busybox":
            return words[1:]
        case "env":
            rest = words[1:]
            while rest and (rest[0].startswith("-") or "=" in rest[0]):
                # `-u NAME` and `-C DIR` take a word of their own (coreutils env(1)); `-S` may touch the next one.
                taken = 2 if rest[0] in ("-u", "--unset", "-C", "--chdir") else 1
                touching = rest[0].removeprefix("-S")
                rest = [touching, *rest[1:]] if rest[0].startswith("-S") and touching else rest[taken:]
            return rest
        case _:
            return words
