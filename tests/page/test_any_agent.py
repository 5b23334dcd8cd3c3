"""What holds for the page of every agent, scripted or running.

That it loads without policy violations, console errors and requests elsewhere is checked at the end
of each test that shows the page (`conftest.show`).
"""

import json
import os
import re
import urllib.request

import pytest
from reader import Reader

READY = "page.readings.length >= 3"
GROUPS_SHOWN = (
    "[...document.querySelectorAll('section:not([hidden]) h2')].map(each => each.textContent)"
)
# Ratio of the contrast of every text with the ground it stands on (WCAG 2.1, 1.4.3), lowest first.
CONTRASTS = """(() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3).map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return (channels(color)[3] ?? 1) > 0 ? color : ground(node.parentElement);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const text = light(node instanceof SVGElement ? style.fill : style.color);
    const pair = [text, light(ground(node))];
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), walker.currentNode.data]);
  }
  return found.sort((one, other) => one[0] - other[0]);
})()"""


@pytest.fixture
def status(origin):
    with urllib.request.urlopen(f"{origin}/status.json", timeout=10) as answer:
        return json.load(answer)


def test_the_page_shows_the_agent_and_its_panels(show, status):
    page = show()
    page.wait(READY)
    text = page.text()
    for word in (
        status["name"],
        status["version"],
        status["state"],
        f"{status['config']['port']} →",
    ):
        assert word in text
    for title in (
        "Requests",
        "Latency",
        "In flight",
        "Connections",
        "Bytes",
        "Failures",
        "The agent itself",
    ):
        assert f"\n{title}\n" in text
    assert page.run("document.querySelectorAll('svg.time').length") >= 7


def test_the_batcher_is_shown_when_there_is_one(show, status):
    page = show()
    page.wait(READY)
    assert ("Batcher" in page.run(GROUPS_SHOWN)) == bool(status["config"]["batcher"])


def test_the_payload_log_is_shown_when_there_is_one(show, status):
    page = show()
    page.wait(READY)
    logger = status["config"]["logger"]
    assert ("Payload log" in page.run(GROUPS_SHOWN)) == bool(logger)
    if logger:
        assert f"to {logger['url']}; mode {logger['mode']}" in page.text()


@pytest.mark.skipif(
    "STATUS_SINK" not in os.environ, reason="needs an agent whose sink now and then answers 503"
)
def test_events_of_a_sink_that_fails_now_and_then_are_seen_to_move(show):
    page = show()
    reader = Reader(page)
    page.wait("page.readings.length >= 3 && value(page.readings.at(-1), EVENTS_SENT, 'response') >"
              " value(page.readings[0], EVENTS_SENT, 'response')")  # fmt: skip
    page.wait("rowsOf('Not delivered').some(([name, total]) =>"
              " name === 'attempts to be repeated' && total !== '0')")  # fmt: skip
    assert reader.legend("Events")["requests sent"] != "0/s"
    assert reader.legend("Delivery attempts")["p50"].endswith("s")
    assert re.search(r"Bytes held [\d.]+ \w+ of 64 MiB", reader.panel("Events waiting").replace("\n", " "))


def test_every_chart_says_in_words_what_it_shows(show):
    page = show()
    page.wait(READY)
    charts = "[...document.querySelectorAll('svg[role=img]')]"
    labels = page.run(f"{charts}.map(each => each.getAttribute('aria-label'))")
    assert len(labels) >= 7
    assert all(re.fullmatch(r"[A-Z].+: .+ \S+", label) for label in labels), labels


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_window(show, width):
    page = show(width=width)
    page.wait(READY)
    assert page.run("document.documentElement.scrollWidth") <= width
    overflowing = page.run(
        "[...document.querySelectorAll('article *, dl *, header *')]"
        ".filter(each => each.getBoundingClientRect().right > innerWidth)"
        ".map(each => each.outerHTML)"
    )
    assert overflowing == []


def test_a_window_without_any_width_does_no_harm(show):
    page = show(width=20)
    page.wait(READY)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(show, scheme):
    page = show(scheme=scheme)
    page.wait(READY)
    assert page.run(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
    contrasts = page.run(CONTRASTS)
    assert len(contrasts) > 50
    assert contrasts[0][0] >= 4.5, contrasts[:5]


def test_it_asks_about_once_a_second(show):
    page = show(hasty=False)
    page.wait("page.readings.length >= 4")
    starts = page.run(
        "performance.getEntriesByType('resource')"
        ".filter(each => each.name.endsWith('/status.json'))"
        ".map(each => each.startTime)"
    )
    pauses = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    assert all(900 <= pause <= 3000 for pause in pauses), pauses
