"""Stories of a tag and a script, through the real handler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_world import FALLBACK, OWNERS, World, a_world

from notebook_ssh.rules.record import Mode
from notebook_ssh.settings import read_settings
from reconcile_notebook.terms import read_terms


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with a_world(monkeypatch) as world:
        yield world


def test_a_tag_puts_the_block_in_and_its_absence_takes_it_out(world: World) -> None:
    world.configuration("team", OWNERS, on_create=b"#!/bin/sh\necho once\n")
    world.notebook("Anas-Box", "team")
    world.settle()
    assert world.on_start("team") == OWNERS

    world.tag("Anas-Box", ssh="ngrok")
    world.settle()
    assert world.has_block("team")
    record = world.record("anas-box")
    assert (record.name, record.wish.mode, record.configuration) == ("Anas-Box", Mode.NGROK, "team")
    assert record.block_since is not None

    world.untag("Anas-Box")
    world.settle()
    assert world.scripts("team") == (b"#!/bin/sh\necho once\n", OWNERS)
    assert world.record("anas-box").wish.mode is Mode.OFF


def test_a_notebook_without_configuration_gets_one_when_it_stops_and_loses_it_when_it_stops_again(world: World) -> None:
    world.notebook("box", ssh="ngrok")
    world.settle()
    assert world.attached("box") is None
    assert FALLBACK not in world.configurations()

    world.stop("box")
    world.settle()
    assert world.attached("box") == FALLBACK
    assert world.record("box").attached == FALLBACK
    assert world.status("box") == "Stopped"

    world.start("box")
    world.untag("box")
    world.settle()
    assert world.attached("box") == FALLBACK
    assert not world.has_block(FALLBACK)

    world.stop("box")
    world.settle()
    assert world.attached("box") is None
    assert FALLBACK not in world.configurations()


def test_the_block_comes_from_the_agents_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Path(__file__).parents[2] / "layers" / "notebook_agent"
    for name, value in {
        "STACK_NAME": "team-ssh",
        "TABLE_NAME": "records",
        "AWS_REGION": "eu-west-1",
        "API_URL": "https://abc.execute-api.eu-west-1.amazonaws.com/v1",
        "NOTEBOOK_AGENT": str(layer),
    }.items():
        monkeypatch.setenv(name, value)
    terms = read_terms(read_settings())
    assert (terms.tag_key, terms.fallback) == ("ssh", "better-sagemaker")
    assert b"https://abc.execute-api.eu-west-1.amazonaws.com/v1" in terms.block.body
