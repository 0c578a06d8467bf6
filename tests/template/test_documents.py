"""What README and docs/ point at exists: files, headings, and what they say to make."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.stack import PROJECT

from emulator.process import ACCOUNT
from environment import USER_POLICY

PICTURES = PROJECT / "docs" / "pictures"
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def prose(document: Path) -> str:
    return FENCED.sub("", document.read_text("utf-8"))


@cache
def anchors(document: Path) -> set[str]:
    """The headings as GitHub names them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    dead = []
    for link in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", link):
            continue  # other sites are not asked by a test
        place, _, anchor = link.partition("#")
        target = document.parent / place if place else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_link_is_dead(document: Path) -> None:
    assert dead_links(document) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(
        "# A heading, here\n[a](#a-heading-here) [b](#gone) [c](gone.md) [d](https://example.com/gone)\n"
    )
    assert dead_links(document) == ["#gone", "gone.md"]


def test_there_are_documents_and_they_are_linked_to_each_other() -> None:
    assert {"README.md", "operations.md", "deploy.md"} <= {path.name for path in DOCUMENTS}
    assert sum(len(LINK.findall(prose(document))) for document in DOCUMENTS) > len(DOCUMENTS)


@pytest.mark.parametrize("script", ["draw.py", "dashboard.py"])
def test_a_picture_is_what_its_script_draws(script: str, tmp_path: Path) -> None:
    pictures = tmp_path / "docs" / "pictures"
    shutil.copytree(PICTURES, pictures)
    shutil.copy(PROJECT / "template.yaml", tmp_path)
    subprocess.run([sys.executable, str(pictures / script)], check=True)
    changed = [path.name for path in pictures.glob("*.svg") if path.read_bytes() != (PICTURES / path.name).read_bytes()]
    assert changed == [], f"run docs/pictures/{script}, and look at the picture"


def test_everything_that_the_documents_say_to_make_can_be_made() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE))
    said = {
        target
        for document in DOCUMENTS
        for block in FENCED.findall(document.read_text("utf-8"))
        for target in re.findall(r"(?:^|&& )make ([a-z-]+)", block, re.MULTILINE)
    }
    assert {"demo", "test", "deploy"} <= said
    assert said <= targets


def test_one_version_is_named_everywhere() -> None:
    import notebook_ssh
    import notebook_ssh_client

    version = notebook_ssh.__version__
    releases = re.findall(r"^## (\S+) – \d{4}-\d\d-\d\d$", (PROJECT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert releases[:1] == [version] == [notebook_ssh_client.__version__]
    assert f" version={version} " in (PROJECT / "docs/block.md").read_text("utf-8")


def test_the_local_run_gives_its_users_what_the_documents_say_that_users_need() -> None:
    deploy = (PROJECT / "docs" / "deploy.md").read_text("utf-8")
    (policy,) = re.findall(r"^```json\n(.*?)^```", deploy, re.MULTILINE | re.DOTALL)
    assert json.loads(policy.replace("ACCOUNT", ACCOUNT)) == USER_POLICY
