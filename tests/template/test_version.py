"""The version is written everywhere at once, or nowhere."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
import version
from support.stack import PROJECT

DAY = datetime.date(2027, 1, 31)
NEWER = "99.1.0"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the places that name the version, with a change that is not released."""
    for place in (*version.PLACES, version.CHANGES):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / place, tmp_path / place)
    changes = tmp_path / version.CHANGES
    text = changes.read_text("utf-8")
    if version.UNRELEASED not in text:
        changes.write_text(text.replace("\n## ", f"\n{version.UNRELEASED}\n- A change.\n\n## ", 1), "utf-8")
    return tmp_path


def texts(project: Path) -> dict[str, str]:
    return {place: (project / place).read_text("utf-8") for place in (*version.PLACES, version.CHANGES)}


def test_a_new_version_stands_everywhere_and_heads_the_changes(project: Path) -> None:
    old, before = version.read(project), texts(project)
    version.write(NEWER, DAY, project)
    after = texts(project)
    assert version.read(project) == NEWER
    assert after == {
        **{place: before[place].replace(old, NEWER, 1) for place in version.PLACES},
        version.CHANGES: before[version.CHANGES].replace("## Unreleased\n", f"## {NEWER} – 2027-01-31\n"),
    }


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("99.1", "99.1 is no version: it has the form 1.2.3"),
        ("v99.1.0", "v99.1.0 is no version"),
        ("0.9.9", "0.9.9 is not newer than"),
    ],
)
def test_what_is_no_newer_version_changes_nothing(project: Path, new: str, says: str) -> None:
    before = texts(project)
    with pytest.raises(version.VersionError, match=says):
        version.write(new, DAY, project)
    assert texts(project) == before


def test_the_version_that_is_there_is_not_newer(project: Path) -> None:
    with pytest.raises(version.VersionError, match="is not newer than"):
        version.write(version.read(project), DAY, project)


def test_without_changes_there_is_nothing_to_release(project: Path) -> None:
    changes = project / version.CHANGES
    changes.write_text(changes.read_text("utf-8").replace(version.UNRELEASED, ""), "utf-8")
    before = texts(project)
    with pytest.raises(version.VersionError, match="no unreleased changes"):
        version.write(NEWER, DAY, project)
    assert texts(project) == before


@pytest.mark.parametrize("place", version.PLACES)
def test_places_that_disagree_are_named(project: Path, place: str) -> None:
    text = (project / place).read_text("utf-8")
    (project / place).write_text(text.replace(version.read(project), "0.0.1", 1), "utf-8")
    with pytest.raises(version.VersionError, match=f"{place}: 0.0.1"):
        version.read(project)
