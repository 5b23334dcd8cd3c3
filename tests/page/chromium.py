"""Headless Chromium over the DevTools protocol: as much of it as the tests of the page need."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

# Longest wait for one condition; starting the browser on a cold disk is the slowest of them.
DEADLINE = 20.0
FLAGS = [
    "--headless=new",
    "--no-sandbox",  # CI runs as root; the only page is ours.
    "--remote-debugging-port=0",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Nothing but the page's own requests.
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    "--disable-features=MediaRouter,OptimizationHints,Translate",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Failure(AssertionError):
    """What did not come in time, or what the browser refused."""


def wait_until(condition, what, seconds=DEADLINE):
    """The first true result of `condition`; fails with `what` when the time is over."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise Failure(f"after {seconds:.0f} s still no {what() if callable(what) else what}")
        time.sleep(0.01)
    return result


class Chromium:
    """One browser for all tests; each page has a context, so cookies and cache, of its own."""

    def __init__(self):
        self._profile = tempfile.TemporaryDirectory(
            prefix="page-chromium-", ignore_cleanup_errors=True
        )
        self._process = subprocess.Popen(
            [
                shutil.which("chromium"),
                *FLAGS,
                f"--user-data-dir={self._profile.name}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port, path = wait_until(self._address, "DevTools address of Chromium")
            self._connection = ExitStack()
            url = f"ws://127.0.0.1:{port}{path}"
            self._socket = self._connection.enter_context(
                connect(url, max_size=None, proxy=None, ping_interval=None)
            )
        except BaseException:
            self._process.kill()
            raise
        self._number = 0
        self._pages = {}

    def _address(self):
        if self._process.poll() is not None:
            raise Failure(f"Chromium ended with {self._process.returncode}")
        try:
            lines = Path(self._profile.name, "DevToolsActivePort").read_text().splitlines()
        except FileNotFoundError:
            return None
        return lines if len(lines) == 2 else None

    def stop(self):
        try:
            self.send("Browser.close")
            self._connection.close()
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
            self._profile.cleanup()

    def send(self, method, session=None, **parameters):
        """The result of one command; events that come before it go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=DEADLINE))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Failure(f"{method}: {answer['error']}")
                return answer["result"]
            if page := self._pages.get(answer.get("sessionId")):
                page.events.append((answer["method"], answer["params"]))

    def page(self, **options):
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)[
            "targetId"
        ]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        page.prepare(**options)
        return page

    def close(self, page):
        del self._pages[page.session]
        self.send("Target.disposeBrowserContext", browserContextId=page.context)


# Violations are kept as the page itself would see them.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) =>
  violations.push(`${event.effectiveDirective} ${event.blockedURI} line ${event.lineNumber}`));
"""
# The same pauses in a hundredth of the time.
HASTE = "{ const wait = setTimeout; window.setTimeout = (what, pause) => wait(what, pause / 100); }"


class Page:
    """One tab. `events` are all that the browser told about it."""

    def __init__(self, browser, session, context):
        self.session = session
        self.context = context
        self.events = []
        self.expected = "\0"
        self._browser = browser

    def prepare(self, width=1280, height=900, scheme="light", hasty=True):
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.send(f"{domain}.enable")
        self.send("Page.addScriptToEvaluateOnNewDocument", source=WATCH + (HASTE if hasty else ""))
        self.resize(width, height)
        self.scheme(scheme)

    def resize(self, width, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def scheme(self, scheme):
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def send(self, method, **parameters):
        return self._browser.send(method, self.session, **parameters)

    def open(self, url):
        self.send("Page.navigate", url=url)

    def run(self, expression):
        """The value of a JavaScript expression in the page, promises awaited."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in result:
            raise Failure(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, seconds=DEADLINE):
        """Until the expression is true."""

        def state():
            return f"{expression}; the page shows: {self.run('document.body?.innerText')}"

        return wait_until(lambda: self.run(expression), state, seconds)

    def text(self):
        return self.run("document.body.innerText")

    def point(self, x, y):
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        self.send("Input.dispatchKeyEvent", type="rawKeyDown", key=key)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path):
        """The whole page, as far as it scrolls."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requested(self):
        return [
            p["request"]["url"] for name, p in self.events if name == "Network.requestWillBeSent"
        ]

    def complaints(self):
        """Console errors, exceptions and policy violations, whichever side reported them."""
        found = list(self.run("window.violations ?? []"))
        for name, params in self.events:
            if name == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            elif name == "Runtime.consoleAPICalled" and params["type"] in (
                "error",
                "warning",
                "assert",
            ):
                found.append([argument.get("value") for argument in params["args"]])
            elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"])
            elif name == "Audits.issueAdded":
                found.append(params["issue"])
        return found
