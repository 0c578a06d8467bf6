"""Render the block's body: the agent packed into the shell frame (layers/notebook_agent/block.sh).

The agent's source is minified and packed; docs/block.md has how to unpack and compare it.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import lzma
import re
import tokenize
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache

from notebook_ssh.model.managed_block import STACK, VERSION, Block, fingerprint

BUDGET = 6_600
"""Bytes that a rendered block may take of a script's 12,288, so that the owner has more than half."""


@dataclass(frozen=True, slots=True)
class BlockSettings:
    """The agent's settings. None of them is a secret; all of them can be read in the script.

    Raises ValueError naming a setting whose value could not stand between quotes in a shell.
    """

    stack: str
    version: str
    region: str
    # Base address of the API with its stage, without a slash at the end.
    api_url: str
    tag_key: str
    # Where to download ngrok instead of from its own site, and its SHA-256; or "".
    ngrok_download: str = ""
    ngrok_sha256: str = ""
    # SHA-256 of the only program that the agent accepts from the API; or "".
    worker_sha256: str = ""
    # `yes` if the agent may install openssh-server where it is missing; or "".
    install_sshd: str = ""

    def __post_init__(self) -> None:
        for (name, pattern), value in zip(_ALLOWED.items(), astuple(self), strict=True):
            if not re.fullmatch(pattern, value):
                raise ValueError(f"the block's {name} is {value!r}, which is not {pattern}")

    def by_word(self) -> dict[str, str]:
        """Return the settings by the names that the agent's arguments have: `{"REGION": …}`. Empty ones are left out."""
        return {word: value for word, value in zip(_WORDS, astuple(self), strict=True) if value}

    def words(self) -> str:
        """Return the agent's arguments, quoted for a shell: `'REGION=eu-west-1' …`."""
        return " ".join(f"'{word}={value}'" for word, value in self.by_word().items())


# Without https only on the machine itself, for the local run.
_URL = r"(https://|http://127\.0\.0\.1:)[A-Za-z0-9._~:/@%+=-]+"
_SHA256 = r"([0-9a-f]{64})?"
_ALLOWED = {
    "stack": STACK.pattern,
    "version": VERSION.pattern,
    "region": r"[a-z]{2}(-[a-z]+)+-[0-9]",
    "api_url": _URL,
    # Tag keys allow letters, digits, spaces and + - = . _ : / @ (Tag, `Key`).
    "tag_key": r"[\w +=.:/@-]{1,100}",
    # The agent replaces `{arch}` by the machine's, amd64 or arm64.
    "ngrok_download": r"((https://|http://127\.0\.0\.1:)[A-Za-z0-9._~:/@%+=,{}-]+)?",
    "ngrok_sha256": _SHA256,
    "worker_sha256": _SHA256,
    "install_sshd": "(yes)?",
}
_WORDS = ("STACK", "VERSION", "REGION", "API", "TAG_KEY", "NGROK_DOWNLOAD", "NGROK_SHA256", "WORKER", "INSTALL_SSHD")


def render_block(frame: str, boot: str, agent: str, settings: BlockSettings) -> Block:
    """Return the block of `settings.stack`: `frame` (shell) with the settings and the packed `boot` and `agent` (Python).

    The block's id is the fingerprint of its sources and settings, so that the same source is the same block with any
    packing library. The body is packed when it is first read, and once.
    """
    source = "\0".join((frame, boot, agent, *astuple(settings)))
    return Block(
        stack=settings.stack,
        version=settings.version,
        id=fingerprint(source.encode()),
        body=cache(lambda: render_body(frame, boot, agent, settings)),
        settings=settings.by_word(),
    )


def read_settings(body: bytes) -> dict[str, str]:
    """Return the settings in a block's body, of whatever version, by their words; empty if they are not found there."""
    line = _ARGUMENTS.search(body)
    return {word.decode(): value.decode() for word, value in _ARGUMENT.findall(line[0])} if line else {}


def render_body(frame: str, boot: str, agent: str, settings: BlockSettings) -> bytes:
    """Return the text between the marker lines.

    Raises ValueError if the frame lacks a placeholder, SyntaxError if a program is not Python.
    """
    program = f"{minify(boot)}\0{minify(agent)}".encode()
    places = {
        "payload": pack(program),
        "sum": hashlib.sha256(program).hexdigest()[:16],
        "arguments": settings.words(),
    }
    text = _without_comments(frame)
    if sorted(_PLACE.findall(text)) != sorted(places):
        raise ValueError(f"the frame has the places {_PLACE.findall(text)} to fill in, instead of {list(places)}")
    # In one pass and by a function: the values may contain @ signs and backslashes.
    return _PLACE.sub(lambda place: places[place[1]], text).encode()


_PLACE = re.compile(r"@([a-z]+)@")
# The frame's line of @arguments@.
_ARGUMENTS = re.compile(rb"^' '[A-Z0-9_]+=[^\n]*' >>", re.MULTILINE)
_ARGUMENT = re.compile(rb"'([A-Z0-9_]+)=([^'\n]*)'")


def _without_comments(frame: str) -> str:
    return "".join(line for line in frame.splitlines(keepends=True) if not line.startswith("#"))


def pack(program: bytes) -> str:
    """Return `program` compressed, in base85: letters, digits and signs without quotes, spaces and backslashes.

    The old .lzma format: its short header names the filter, so that `lzma.decompress` needs no arguments.
    """
    # The dictionary is small because the preset's own, 64 MB, would cost a Lambda function its memory.
    preset = 9 | lzma.PRESET_EXTREME
    filters = [{"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 0}]
    return base64.b85encode(lzma.compress(program, lzma.FORMAT_ALONE, filters=filters)).decode()


def minify(source: str) -> str:
    """Return Python source without comments, docstrings and needless spaces; its syntax tree proves it the same program.

    Names stay, so that a traceback can be read: shortening them safely saves less than 2 % (docs/block.md).
    Raises SyntaxError for anything but Python.
    """
    tree = ast.parse(source)
    instead = dict(_docstrings(tree))
    minified = "".join(_lines(source, instead))
    if ast.dump(ast.parse(minified)) != ast.dump(tree):
        raise ValueError("squeezing changed the program")
    return minified


def _docstrings(tree: ast.Module) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield where each docstring begins, and its replacement; `tree` loses them too."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as first, *rest]:
                if rest or isinstance(node, ast.Module):
                    node.body = rest
                    yield (first.lineno, first.col_offset), ""
                else:
                    node.body = [ast.Expr(ast.Constant(0))]
                    yield (first.lineno, first.col_offset), "0"


def _lines(source: str, instead: dict[tuple[int, int], str]) -> Iterator[str]:
    """Yield the logical lines of `source`, minified, with one space per level of indentation.

    instead: the replacement of the docstring that begins at (line, column).
    """
    depth = 0
    line = ""
    for token in _tokens(source):
        match token.type:
            case tokenize.INDENT:
                depth += 1
            case tokenize.DEDENT:
                depth -= 1
            case tokenize.NEWLINE:
                if line:
                    yield " " * depth + line + "\n"
                line = ""
            case tokenize.COMMENT | tokenize.NL | tokenize.ENDMARKER:
                pass
            case _:
                text = token.string if line else instead.get(token.start, token.string)
                line += " " * _would_merge(line, text) + text


def _would_merge(before: str, after: str) -> bool:
    """Return whether two words would become one without a space between them."""
    return bool(re.search(r"\w$", before) and re.match(r"\w", after))


def _tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of `source`, each f-string as one: Python 3.12 and later split them (PEP 701)."""
    start_type = getattr(tokenize, "FSTRING_START", None)
    end_type = getattr(tokenize, "FSTRING_END", None)
    lines = list(io.StringIO(source))
    depth = 0
    begin = (0, 0)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type == start_type:
            begin = begin if depth else token.start
            depth += 1
        if not depth:
            yield token
        if token.type == end_type:
            depth -= 1
            if not depth:
                text = _between(lines, begin, token.end)
                yield tokenize.TokenInfo(tokenize.STRING, text, begin, token.end, token.line)


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    part = lines[start[0] - 1 : end[0]]
    part[-1] = part[-1][: end[1]]
    part[0] = part[0][start[1] :]
    return "".join(part)
