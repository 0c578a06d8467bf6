"""The block's body: what goes in comes out, nothing else can get in, and it leaves the owner more than half the room."""

from __future__ import annotations

import ast
import base64
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from notebook_ssh.model import block_program
from notebook_ssh.model.block_program import (
    BUDGET,
    BlockSettings,
    minify,
    pack,
    read_settings,
    render_block,
    render_body,
)
from notebook_ssh.model.managed_block import Block, Inserted, Original, insert_block

LAYER = Path(__file__).resolve().parents[2] / "layers" / "notebook_agent"
FRAME, BOOT, AGENT = ((LAYER / name).read_text() for name in ("block.sh", "boot.py", "agent.py"))
USUAL = BlockSettings(
    stack="notebook-ssh",
    version="1.0.0",
    region="ap-southeast-1",
    api_url="https://a1b2c3d4e5.execute-api.ap-southeast-1.amazonaws.com/prod",
    tag_key="ssh",
    worker_sha256="0123456789abcdef" * 4,
)
EVERYTHING = replace(
    USUAL,
    stack="notebook-ssh-of-team-research",
    ngrok_download="https://downloads.example.com/tools/ngrok-v3-stable-linux-{arch}.tgz",
    ngrok_sha256="fedcba9876543210" * 4,
    install_sshd="yes",
)


def unpacked(body: bytes) -> tuple[str, str]:
    """The two programs in `body`, by the steps that stand in the block itself."""
    found = re.search(rb"P='([^']+)'", body)
    assert found
    boot, agent = lzma.decompress(base64.b85decode(found[1])).split(b"\0")
    return boot.decode(), agent.decode()


# --- room -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [USUAL, EVERYTHING], ids=["usual settings", "all settings"])
def test_the_block_keeps_to_its_budget(chosen: BlockSettings) -> None:
    size = max(len(render_block(FRAME, BOOT, AGENT, chosen).render(original)) for original in Original)
    assert size <= BUDGET, f"the block takes {size} bytes, {size - BUDGET} more than its {BUDGET}"


# --- what goes in comes out -------------------------------------------------------------------------------------


def test_both_programs_come_out_as_they_were_squeezed() -> None:
    assert unpacked(render_body(FRAME, BOOT, AGENT, USUAL)) == (minify(BOOT), minify(AGENT))


def test_the_sum_in_the_body_is_of_the_unpacked_bytes() -> None:
    body = render_body(FRAME, BOOT, AGENT, USUAL).decode()
    told = re.search(r'!="([0-9a-f]{16})"', body)
    assert told
    assert hashlib.sha256("\0".join(unpacked(body.encode())).encode()).hexdigest()[:16] == told[1]


@given(st.binary(max_size=500))
def test_packed_bytes_can_stand_between_single_quotes(program: bytes) -> None:
    packed = pack(program)
    assert not set(packed) & set("'\\\n\r\t ")
    assert packed.isascii()
    assert lzma.decompress(base64.b85decode(packed)) == program


def test_no_comment_of_the_frame_is_carried() -> None:
    body = render_body(FRAME, BOOT, AGENT, USUAL).decode()
    assert not [line for line in body.splitlines() if line.startswith("#")]


@pytest.mark.parametrize("frame", ["P='@payload@' @sum@\n", FRAME + "echo @other@\n", FRAME + "echo @sum@\n"])
def test_a_frame_with_other_places_is_refused(frame: str) -> None:
    with pytest.raises(ValueError, match="places"):
        render_body(frame, BOOT, AGENT, USUAL)


def test_at_signs_in_what_is_put_in_stay() -> None:
    body = render_body(FRAME, BOOT, AGENT, replace(USUAL, tag_key="@sum@"))
    assert b"'TAG_KEY=@sum@'" in body


# --- the id -----------------------------------------------------------------------------------------------------


def test_the_id_differs_with_every_source_and_setting() -> None:
    blocks = [
        render_block(FRAME, BOOT, AGENT, USUAL),
        render_block(FRAME + "\n", BOOT, AGENT, USUAL),
        render_block(FRAME, BOOT + "pass\n", AGENT, USUAL),
        render_block(FRAME, BOOT, AGENT + "pass\n", USUAL),
        render_block(FRAME, BOOT, AGENT, replace(USUAL, version="1.0.1")),
        render_block(FRAME, BOOT, AGENT, replace(USUAL, worker_sha256="")),
    ]
    assert len({block.id for block in blocks}) == len(blocks)
    assert render_block(FRAME, BOOT, AGENT, USUAL) == blocks[0]


def _pythons() -> list[str]:
    """The interpreters of this machine that the core may be built with: one for each minor version from 3.11 on."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {path.parts[-3].rpartition(".")[0]: str(path) for path in versions.glob("3.1[1-9]*/bin/python")}
    for minor in range(11, 20):
        found.setdefault(f"3.{minor}", shutil.which(f"python3.{minor}") or "")
    mine = f"3.{sys.version_info.minor}"
    return [sys.executable, *(path for minor, path in sorted(found.items()) if path and minor != mine)]


DESCRIBE = """
import base64, hashlib, json, re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from notebook_ssh.controllers.agent_layer import worker_program
from notebook_ssh.model.block_program import BlockSettings, render_block
layer = Path(sys.argv[2])
worker = hashlib.sha256(worker_program(layer).encode()).hexdigest()
sources = [(layer / name).read_text("utf-8") for name in ("block.sh", "boot.py", "agent.py")]
block = render_block(*sources, BlockSettings("team", "1.0.0", "eu-west-1", "https://x/prod", "ssh", worker_sha256=worker))
print(json.dumps([worker, block.id, block.text().hex()]))
"""


@pytest.mark.parametrize("python", _pythons(), ids=lambda path: Path(path).parents[1].name)
def test_every_build_has_the_same_id_sum_and_bytes(tmp_path: Path, python: str) -> None:
    """Built at another time, with another umask, in another order of files, by another Python: no script is rewritten."""
    other = tmp_path / "another build"
    other.mkdir(0o700)
    for path in sorted(LAYER.rglob("*"), reverse=True):
        if path.suffix in (".py", ".sh"):
            copy = other / path.relative_to(LAYER)
            copy.parent.mkdir(0o700, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)
            os.utime(copy, (1_000_000_000, 1_000_000_000))

    def described(interpreter: str, layer: Path, umask: int) -> str:
        command = [interpreter, "-I", "-c", DESCRIBE, str(ROOT / "layers/core"), str(layer)]
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, umask=umask).stdout

    assert described(python, other, 0o077) == described(sys.executable, LAYER, 0o022)


def test_the_id_does_not_depend_on_the_packing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of liblzma may pack the same program into other bytes; the block is the same."""
    usual = render_block(FRAME, BOOT, AGENT, USUAL)
    script = insert_block(b"#!/bin/sh\n", usual)
    assert isinstance(script, Inserted)
    monkeypatch.setattr(block_program, "pack", lambda program: base64.b85encode(lzma.compress(program)).decode())
    repacked = render_block(FRAME, BOOT, AGENT, USUAL)
    assert (repacked.id, repacked.text() != usual.text()) == (usual.id, True)
    again = insert_block(script.script, repacked)
    assert isinstance(again, Inserted)
    assert again.script == script.script


# --- settings ---------------------------------------------------------------------------------------------------


def test_settings_are_quoted_words_and_empty_ones_are_left_out() -> None:
    assert replace(USUAL, worker_sha256="", tag_key="team:ssh access").words() == (
        "'STACK=notebook-ssh' 'VERSION=1.0.0' 'REGION=ap-southeast-1' "
        "'API=https://a1b2c3d4e5.execute-api.ap-southeast-1.amazonaws.com/prod' 'TAG_KEY=team:ssh access'"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stack", "a'b"), ("version", "1.0\n"), ("region", "eu"), ("region", ""), ("api_url", "https://x/'; reboot '"),
        ("api_url", "ftp://x"), ("api_url", ""), ("tag_key", "ssh'"), ("tag_key", "ssh\n"), ("tag_key", ""),
        ("ngrok_download", "https://x/$(id) "), ("ngrok_sha256", "abc"), ("worker_sha256", "A" * 64),
        ("install_sshd", "no"),
    ],
)  # fmt: skip
def test_a_setting_that_could_leave_its_quotes_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"the block's {name} is "):
        replace(USUAL, **{name: value})


@given(st.text(max_size=30))
def test_whatever_is_accepted_is_one_word_for_a_shell(value: str) -> None:
    try:
        words = replace(USUAL, tag_key=value).words()
    except ValueError:
        return
    heard = subprocess.run(["sh", "-c", f"printf '%s\\n' {words}"], capture_output=True, check=True).stdout.decode()
    assert f"TAG_KEY={value}" in heard.split("\n")


@pytest.mark.parametrize("chosen", [USUAL, EVERYTHING], ids=["usual settings", "all settings"])
def test_the_settings_of_a_block_in_a_script_can_be_read(chosen: BlockSettings) -> None:
    block = render_block(FRAME, BOOT, AGENT, chosen)
    assert read_settings(block.text()) == block.settings == chosen.by_word()


@pytest.mark.parametrize("body", [b"", b"true\n", b"' 'STACK=a\n' >>x\n", b"echo ' 'STACK=a' >>x\n", b"\xff' >>\n"])
def test_a_body_without_settings_has_none(body: bytes) -> None:
    assert read_settings(body) == {}


# --- squeezing --------------------------------------------------------------------------------------------------

READABLE = '''"""Module."""

import os  # why


class Kept:
    """Only a docstring."""


def said(name, *more, when=None):
    """What is said.

    With more lines.
    """
    # a comment
    text = (
        f"{name!r:>{len(name) + 1}} # no comment {'in' if more else 'out'}"
        "a  b"
    )
    if not more or -1 < 2 and 3 in more:
        return [x for x in (1, 2) if x]

    def inner():
        """Alone."""

    return text, lambda: 0.5 .real, b"\\x00", {**{}}, more[1:-1], os.environ.get("A", "# b")
'''


def test_squeezing_leaves_what_the_program_needs() -> None:
    squeezed = minify(READABLE)
    assert squeezed.splitlines()[:5] == ["import os", "class Kept:", " 0", "def said(name,*more,when=None):", (
        ' text=(f"{name!r:>{len(name) + 1}} # no comment {\'in\' if more else \'out\'}""a  b")'
    )]  # fmt: skip
    assert " if not more or-1<2 and 3 in more:\n" in squeezed
    assert '"""' not in squeezed
    assert "# why" not in squeezed


@pytest.mark.parametrize("path", sorted(Path(ast.__file__).parent.glob("[a-e]*.py")), ids=lambda path: path.name)
def test_squeezed_modules_of_the_standard_library_are_the_same_programs(path: Path) -> None:
    # Compiled without docstrings both are the same code; `minify` itself raises when the trees differ.
    squeezed = minify(path.read_text(encoding="utf-8"))
    compile(squeezed, path.name, "exec")
    assert len(squeezed) < path.stat().st_size


def test_the_agent_and_the_boot_are_squeezed_to_the_same_on_every_supported_python() -> None:
    # The positions inside of f-strings and the tokens they are made of changed in Python 3.12.
    assert 'f"' not in re.sub(r'f"(?:[^"\\]|\\.)*"', "", minify(AGENT))
    ast.parse(minify(AGENT), feature_version=(3, 9))
    ast.parse(minify(BOOT), feature_version=(3, 9))


def test_what_is_no_python_is_refused() -> None:
    with pytest.raises(SyntaxError):
        minify("def:\n")


# --- the text as a shell reads it -------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sh", "bash", "dash", "ksh"])
def test_shellcheck_finds_nothing_in_a_rendered_block(dialect: str) -> None:
    body = render_body(FRAME, BOOT, AGENT, EVERYTHING)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    # 2016: the payload may hold a `$`, and is not meant to be expanded.
    checked = subprocess.run(
        [shellcheck, f"--shell={dialect}", "--exclude=SC2016", "-"], input=body, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout.decode()) == (0, "")


# --- what docs/block.md tells people to type ----------------------------------------------------------------------

ROOT = LAYER.parents[1]
GUIDE = (ROOT / "docs/block.md").read_text()


def commands(language: str) -> list[str]:
    """The code that stands in the guide in `language`, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_the_guide_takes_the_block_out_by_hand(tmp_path: Path) -> None:
    owners = b"#!/bin/bash\nset -e\r\n# <<< notebook-ssh is mentioned\necho \xff"
    block = render_block(FRAME, BOOT, AGENT, replace(USUAL, stack="team-ssh"))
    # A short one: a script has no room for the agents of two stacks.
    other = Block(stack="team-ssh-2", version="1.0.0", id="0123456789ab", body=b"true\n")
    with_other = insert_block(owners, other)
    assert isinstance(with_other, Inserted)
    with_both = insert_block(with_other.script, block)
    assert isinstance(with_both, Inserted)
    (tmp_path / "with-block.sh").write_bytes(with_both.script)
    (command,) = commands("sh")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "without-block.sh").read_bytes() == with_other.script


def test_the_guide_prints_the_packed_programs_and_what_they_are_compared_with(tmp_path: Path) -> None:
    script = insert_block(b"#!/bin/bash\n", render_block(FRAME, BOOT, AGENT, USUAL))
    assert isinstance(script, Inserted)
    (tmp_path / "script.sh").write_bytes(script.script)
    reads, compares = (
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "script.sh"],
            cwd=ROOT, env={"PYTHONPATH": "layers/core"}, capture_output=True, check=True,
        ).stdout
        for code in commands("python")
    )  # fmt: skip
    assert reads == compares
    assert b"# --- agent.py ---\nimport " in reads
