"""A headless Chromium driven by its DevTools protocol, over two pipes: no driver, no library, no port.

The protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, each ended by a NUL.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = (  # what Chromium itself would ask the web for
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--disable-default-apps", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
)  # fmt: skip
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
TIMEOUT = 60  # seconds


class Tab:
    """A tab of the browser.

    Attributes:
        requests: the URLs that the page has asked for, in order.
        errors: what went wrong in its scripts, and what they wrote on the console as an error.
    """

    def __init__(self, commands: int, messages: int) -> None:
        self._commands, self._messages, self._rest = commands, messages, b""
        self._number, self._session = 0, None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        """Send a command and wait for its result; note the events that come before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def open(self, address: str, *, width: int = 1200, height: int = 900, mobile: bool = False) -> None:
        """Open a page in a window of this size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page; a promise's once it is kept."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        end = time.monotonic() + TIMEOUT
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"never true: {script}\n{self.evaluate('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is: left, top, width and height in pixels, brought into view."""
        script = (
            f"(e => {{ e.scrollIntoView({{block: 'nearest'}}); const b = e.getBoundingClientRect();"
            f" return [b.x, b.y, b.width, b.height]; }})(document.querySelector({selector!r}))"
        )
        return tuple(self.evaluate(script))

    def draw(self, selector: str, points: list[tuple[float, float]]) -> None:
        """Draw a line on an element with the mouse, through points given as shares of its width and height."""
        left, top, width, height = self.box(selector)
        places = [{"x": left + x * width, "y": top + y * height, "button": "left"} for x, y in points]
        self.call("Input.dispatchMouseEvent", type="mousePressed", clickCount=1, **places[0])
        for place in places[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", buttons=1, **place)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", clickCount=1, **places[-1])

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        self.draw(selector, [(0.5, 0.5)])

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """Press a key and let it go; ``code`` is Windows's virtual key."""
        names = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **names, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def choose_file(self, selector: str, file: Path) -> None:
        """Choose a file in an ``<input type=file>``."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=found["objectId"])

    def accessible(self) -> list[tuple[str, str]]:
        """What a screen reader is told of: (role, name) of each node, in order."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            part = os.read(self._messages, 2**16)
            assert part, "the browser has gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(parameters["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if parameters["type"] == "error":
                self.errors.append(json.dumps(parameters["args"]))


@contextmanager
def driven(browser: str, folder: Path) -> Iterator[Tab]:
    """Start a browser with a profile in ``folder``, and give a tab of it."""
    read_commands, commands = os.pipe()
    messages, write_messages = os.pipe()
    # The browser reads descriptor 3 and writes to 4.
    script = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_messages}'
    options = ("--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", *QUIET, *CAMERA)
    with subprocess.Popen(
        ["bash", "-c", script, browser, *options],
        pass_fds=(read_commands, write_messages),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(read_commands)
        os.close(write_messages)
        try:
            yield Tab(commands, messages)
        finally:
            process.terminate()
            os.close(commands)
            os.close(messages)
