"""Which paths spell a notebook as IAM has compared it."""

from __future__ import annotations

import pytest

from notebook_ssh.model.spelling import is_spelled

ROUTES = [f"/notebooks/{{name}}{end}" for end in ("", "/ssh", "/doctor", "/start", "/certificate")]
NAME = "My-Notebook"

# `{}` is what follows the name in the route.
OTHERS = [
    "/notebooks/my-notebook{}",
    "/notebooks/MY-NOTEBOOK{}",
    "/notebooks/My%2DNotebook{}",
    "/notebooks/%4Dy-Notebook{}",
    "/notebooks/My-Notebook{}/",
    "/notebooks/My-Notebook{}/x",
    "/n%6Ftebooks/My-Notebook{}",
    "/notebooks//My-Notebook{}",
    "//notebooks/My-Notebook{}",
    "/notebooks/other/../notebooks/My-Notebook{}",
    "/../notebooks/My-Notebook{}",
    "/./notebooks/My-Notebook{}",
    "/a//notebooks/My-Notebook{}",
    "/%61/notebooks/My-Notebook{}",
    "x/notebooks/My-Notebook{}",
    "/notebooks/My-Notebook{}?",
    "/notebooks/My-Notebook{}#",
    " /notebooks/My-Notebook{}",
    "",
]


@pytest.mark.parametrize("route", ROUTES)
def test_the_path_must_be_what_iam_has_compared(route: str) -> None:
    end = route.removeprefix("/notebooks/{name}")
    assert is_spelled(f"/notebooks/{NAME}{end}", route, NAME)
    assert [path for path in OTHERS if is_spelled(path.format(end), route, NAME)] == []


@pytest.mark.parametrize("route", ROUTES)
def test_below_a_base_path_of_a_custom_domain_it_is_the_same(route: str) -> None:
    assert is_spelled("/team/ssh" + route.replace("{name}", NAME), route, NAME)
    assert not is_spelled("/team/ssh" + route.replace("{name}", NAME.lower()), route, NAME)
