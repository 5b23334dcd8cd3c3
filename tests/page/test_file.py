"""The page as a file: what the agent's content security policy asks of it."""

import re

import pytest
from server import PAGE

TEXT = PAGE.read_text()


@pytest.mark.parametrize("tag", ["style", "script"])
def test_there_is_one_place_for_the_nonce(tag):
    assert TEXT.count(f"<{tag}>") == 1
    assert len(re.findall(rf"<{tag}\b", TEXT)) == 1


@pytest.mark.parametrize(
    "forbidden",
    [
        r"\sstyle\s*=\s*[\"']", r"<[^>]*\son[a-z]+\s*=", r"\bsrc\s*=", r"@import", r"javascript:",
        r"\beval\(",
        r"innerHTML", r"outerHTML", r"insertAdjacentHTML", r"document\.write", r"DOMParser",
        r"new Function",
    ],
)  # fmt: skip
def test_markup_and_script_do_without(forbidden):
    assert not re.search(forbidden, TEXT)


def test_the_only_addresses_are_names_of_the_svg_namespace():
    assert set(re.findall(r"\w+://[^'\" )]+", TEXT)) == {"http://www.w3.org/2000/svg"}
