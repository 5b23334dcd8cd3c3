"""What the tests of the status page share: a browser, the page in it, and a server that stands for
the agent.

With `STATUS_URL=http://127.0.0.1:PORT` the page of a running agent is tested instead, as far as it
can be when nobody knows what its numbers should be.
"""

import os
import shutil
import time

import pytest
from chromium import Chromium
from model import TIME, Agent
from server import Server

REAL = os.environ.get("STATUS_URL", "").rstrip("/")


def pytest_configure():
    if not shutil.which("chromium"):
        raise pytest.UsageError(
            "chromium is not installed; `make test-page` installs it where it can"
        )


def pytest_collection_modifyitems(items):
    """A running agent can't be scripted."""
    if REAL:
        items[:] = [item for item in items if "server" not in item.fixturenames]


@pytest.fixture(scope="session")
def browser():
    one = Chromium()
    yield one
    one.stop()


@pytest.fixture
def server():
    one = Server(Agent())
    yield one
    one.stop()


@pytest.fixture
def origin(request):
    """Of the running agent, if there is one, or else of a server that stands for it."""
    return REAL or request.getfixturevalue("server").origin


@pytest.fixture
def show(browser, origin):
    """`show(**options)` opens the page; at the end there are no complaints, no requests elsewhere.

    A test that makes the agent fail sets `page.expected`, a word of the complaints that come of it.
    """
    pages = []

    def start(**options):
        page = browser.page(**options)
        pages.append(page)
        page.open(f"{origin}/")
        page.wait("document.readyState === 'complete' && typeof page === 'object'")
        return page

    yield start
    for page in pages:
        print(page.text())  # Shown by pytest when the test has failed.
        complaints = [each for each in page.complaints() if page.expected not in str(each)]
        requested = {url for url in page.requested() if not url.startswith("data:")}
        browser.close(page)
        assert not complaints
        assert requested == {f"{origin}/", f"{origin}/status.json"}


def shown(second):
    """Condition: the page has the reading of this second."""
    moment = time.strftime("%H:%M:%S", time.gmtime(TIME + second))
    return f"document.getElementById('latest').textContent === 'Latest reading {moment} UTC.'"


@pytest.fixture
def after(server, show):
    """`after(seconds, agent, **options)` gives the page when it has watched the agent for so long,
    every `step` seconds."""

    def start(seconds, agent, step=1, **options):
        server.agent = agent
        server.last = seconds
        server.step = step
        page = show(**options)
        page.wait(shown(seconds))
        return page

    return start
