"""The page to draw digits on, served for tests, and opened in a browser."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page

from helpers.browser import TIMEOUT as PATIENCE
from helpers.project import Project

WATCHED = """
import runpy, sys
HERE = ("127.0.0.1", "localhost", None)
def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.bind"):
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in HERE:
            print(f"network: {event} {address}", file=sys.stderr, flush=True)
    if event in ("socket.getaddrinfo", "socket.gethostbyname") and arguments[0] not in HERE:
        print(f"network: {event} {arguments[0]}", file=sys.stderr, flush=True)
sys.addaudithook(note)
sys.argv[0] = "demo"
runpy.run_module("src.reader.page", run_name="__main__")
"""  # says on stderr whatever of the server would leave this machine
TEMPTING = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True"}
READY = "document.querySelector('canvas')?.onpointerup"  # the sheet takes strokes
TIMEOUT = 60  # seconds, to end


class ServedPage(NamedTuple):
    """A page that is served.

    Attributes:
        address: its URL, with a final slash.
        process: the server's.
        errors: the file that holds what it wrote on stderr.
    """

    address: str
    process: subprocess.Popen
    errors: Path


@contextmanager
def served_page(project: Project, errors: Path) -> Iterator[ServedPage]:
    """Serve the page of a project's model on any port, watched; at the end Ctrl-C must end it in good order."""
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", WATCHED, "--port", "0"],
            cwd=project.path,
            env=project.environment() | TEMPTING,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert re.fullmatch(r"demo: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line), line + errors.read_text()
            yield ServedPage(line.split()[1], process, errors)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=TIMEOUT) == 0
        finally:
            process.kill()


@contextmanager
def opened(browser: Browser, page: ServedPage) -> Iterator[Page]:
    """Open the page in a tab of its own, and wait until the sheet is there."""
    with browser.new_page(permissions=["camera"]) as tab:
        tab.set_default_timeout(PATIENCE)
        tab.goto(page.address)
        tab.wait_for_function(READY)
        yield tab


def draw(tab: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line on the sheet with the mouse, through points given as shares of its width and height."""
    box = tab.locator("canvas").first.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place)
    tab.mouse.up()


def wait_for_bars(tab: Page, count: int = 10) -> None:
    """Wait until so many probabilities are shown."""
    tab.wait_for_function(f"document.querySelector('#probabilities').innerText.split('%').length === {count + 1}")


def needs_gradio() -> str | None:
    """Why the page can't be served here, or None."""
    if os.name == "nt":
        return "needs signals as POSIX has them"
    return None if find_spec("gradio") else "needs Gradio: pip install -r requirements-demo.txt"
