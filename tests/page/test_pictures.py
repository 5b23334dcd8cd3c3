"""Pictures of the page for people to look at, in target/page: how it looks is judged there and not here."""

import itertools
import os
from pathlib import Path

import pytest
import scenes

FOLDER = Path(os.environ.get("PAGE_PICTURES", Path(__file__).parents[2] / "target/page"))
MINUTES_5 = 300


@pytest.mark.parametrize("scene", [scenes.busy, scenes.batching])
def test_pictures_of(after, scene):
    page = after(MINUTES_5, scene(), step=3)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for width, scheme in itertools.product([1280, 360], ["light", "dark"]):
        page.resize(width)
        page.scheme(scheme)
        page.wait(f"document.querySelector('figure:not([hidden]) svg.time').clientWidth < {width}")
        page.picture(FOLDER / f"{scene.__name__}-{width}-{scheme}.png")
