"""The commands of the documents mean the same in bash, in dash and in zsh, the shell of macOS.

Each block is run where every program that reaches out only notes its arguments; what is noted must be the same.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support import needs

from patience import LIMIT_S

pytestmark = pytest.mark.slow  # each starts three shells

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("client/*.md"), *PROJECT.glob("docs/*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = {"bash": ["bash", "-u"], "dash": ["dash", "-u"], "zsh": ["zsh", "-fu"]}
NOTED = (
    "python3 ansible autossh aws bash curl date git lftp make notebook-ssh pipx plink psftp puttygen rclone rsync sam scp "
    "sftp ssh ssh-add ssh-status sshfs unzip"
)
KEPT = "base64 cat grep head printf sed tail tr"

NOTE = """\
#!/bin/sh
line=${0##*/}
for word; do line="$line <$word>"; done
printf '%s\n' "$line" >> "$NOTES" # at once: the programs of a pipe write next to each other
case $0 in */date) echo 1764000000 ;; *) echo "told-by-${0##*/}" ;; esac
"""


def blocks() -> list[tuple[str, str]]:
    """Each shell block of the documents, after those before it that define functions, and a name to find it by."""
    found = []
    for document in DOCUMENTS:
        defined = ""
        for number, block in enumerate(BLOCK.finditer(document.read_text("utf-8")), 1):
            found.append((f"{document.relative_to(PROJECT)}, block {number}", defined + block[1]))
            defined += block[1] if "() {" in block[1] else ""
    return found


def noted(shell: str, text: str, folder: Path) -> list[str]:
    """The programs that a block runs, with their arguments, in the order of the alphabet: pipes have no other."""
    programs, notes = folder / "bin", folder / "notes"
    programs.mkdir(parents=True)
    (folder / ".build").mkdir()
    for name in ("aws.sh", "local.sh"):
        (folder / ".build" / name).write_text("")
    (folder / ".ssh").mkdir()
    (folder / ".venv/sam/bin").mkdir(parents=True)
    here = (folder / ".venv/sam/bin/sam", folder / "deploy.sh")
    for program in (*(programs / name for name in NOTED.split()), *here):
        program.write_text(NOTE)
        program.chmod(0o755)
    for name in KEPT.split():
        (programs / name).symlink_to(needs.program(name))
    where = needs.program(shell)
    names = ("AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN API API_URL BUCKET UNIT LAPTOP "
             "NGROK_DOWNLOAD NGROK_TOKEN NOTEBOOK_ARN STACK TABLE")  # fmt: skip
    usual = {name: f"the-{name.lower().replace('_', '-')}" for name in names.split()}
    (folder / "the-laptop").mkdir()
    for name in ("on-start.sh", "with-block.sh"):
        (folder / name).write_text("#!/bin/sh\n")
    done = subprocess.run(
        [where, *SHELLS[shell][1:], "-c", text],
        cwd=folder, input="typed\n", capture_output=True, text=True, timeout=LIMIT_S, check=False,
        env={"PATH": str(programs), "HOME": str(folder), "NOTES": str(notes), **usual},
    )  # fmt: skip
    assert "not found" not in done.stderr, done.stderr
    assert "rror" not in done.stderr, done.stderr
    # Each shell has a home folder of its own, which `~` is.
    return sorted(notes.read_text().replace(str(folder), "HOME").splitlines()) if notes.exists() else []


def test_curl_signs_for_the_same_service_in_any_shell(tmp_path: Path) -> None:
    first = {name.partition(",")[0]: (name, text) for name, text in reversed(blocks()) if "aws-sigv4" in text}
    assert len(first) >= 5
    for number, (name, text) in enumerate(first.values()):
        for shell in SHELLS:
            typed = f"{text}\n" + "api /notebooks\n" * ("api() {" in text)
            scopes = re.findall(r"<aws:amz:[^>]*>", "\n".join(noted(shell, typed, tmp_path / f"{number}{shell}")))
            assert set(scopes) == {"<aws:amz:the-aws-region:execute-api>"}, (name, shell)


@pytest.mark.parametrize(("name", "text"), blocks(), ids=[name for name, _ in blocks()])
def test_a_block_runs_the_same_programs_in_any_shell(name: str, text: str, tmp_path: Path) -> None:
    seen = {shell: noted(shell, text, tmp_path / shell) for shell in SHELLS}
    assert seen["bash"] or "() {" in text or text.startswith("sed "), f"{name} runs no program that was noted"
    assert seen["dash"] == seen["bash"]
    assert seen["zsh"] == seen["bash"]


def documented() -> list[Path]:
    """Every file that git knows in which commands for a shell may stand."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    suffixes = (".md", ".yaml", ".py", ".sh", "Makefile")
    return [PROJECT / name for name in listed.split("\0") if name.endswith(suffixes) and not name.startswith("tests/")]


MODIFIED = re.compile(r"\$[A-Za-z_][A-Za-z_0-9]*:[A-Za-z&]")
"""What zsh reads as a variable with a modifier, within double quotes too (zshexpn(1), Modifiers)."""


def test_no_command_has_what_zsh_takes_for_a_modifier() -> None:
    found = [
        f"{path.relative_to(PROJECT)}: {line.strip()}"
        for path in documented()
        for line in path.read_text("utf-8").splitlines()
        if MODIFIED.search(line)
    ]
    assert found == []


COLON = re.compile(r"\$[A-Za-z_][A-Za-z_0-9]*:")


@pytest.mark.parametrize(("name", "text"), blocks(), ids=[name for name, _ in blocks()])
def test_a_block_can_be_pasted_into_any_shell(name: str, text: str) -> None:
    """At its prompt zsh takes `#` for a word, and what follows for more of them: `pipx install ./client # in a checkout`."""
    assert not re.search(r"(?m)(^|\s)#", text), f"{name}: a comment"
    assert not COLON.search(text), f"{name}: write ${{NAME}}:, since zsh may read a modifier"
