"""Pictures of the page for people to look at, in target/page: how it looks is judged there."""

import itertools
import os
from pathlib import Path

import pytest
import scenes
from model import Agent

FOLDER = Path(os.environ.get("PAGE_PICTURES", Path(__file__).parents[2] / "target/page"))
MINUTES_5 = 300
SIZES_AND_SCHEMES = list(itertools.product([1280, 360], ["light", "dark"]))


def take(page, name, width, scheme):
    FOLDER.mkdir(parents=True, exist_ok=True)
    page.resize(width)
    page.scheme(scheme)
    # The charts are drawn anew for the new width.
    page.wait("[...document.querySelectorAll('svg.time')].every(each => !each.clientWidth ||"
              " each.clientWidth === each.parentElement.clientWidth)")  # fmt: skip
    page.picture(FOLDER / f"{name}-{width}-{scheme}.png")


@pytest.mark.parametrize("scene", [scenes.busy, scenes.batching, scenes.logging_payloads, scenes.pulling])
def test_at_work(after, scene):
    page = after(MINUTES_5, scene(), step=3)
    for width, scheme in SIZES_AND_SCHEMES:
        take(page, scene.__name__, width, scheme)


def test_just_opened_without_traffic(after):
    take(after(3, Agent()), "idle", 1280, "light")


def test_draining_and_then_out_of_reach(server, after):
    page = after(90, scenes.batching(state="draining"), step=3)
    page.point(700, 300)
    take(page, "draining", 1280, "light")
    page.expected = "/status.json"
    server.failing = 503
    page.wait("page.failure !== null")
    for width, scheme in SIZES_AND_SCHEMES[1:3]:
        take(page, "out-of-reach", width, scheme)
