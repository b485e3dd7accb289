"""The page to draw digits on, served for tests, and opened in a browser."""

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from helpers.browser import TIMEOUT as PATIENCE
from helpers.pictures import drawing, encoded
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
ANSWER = "document.querySelector('#answer').textContent"
NOTHING = "Nothing yet."
TIMEOUT = 60  # seconds, to end


class ServedPage:
    """A page that is served.

    Attributes:
        address: its URL, with a final slash.
        process: the server's.
        errors: the file that holds what it wrote on stderr.
    """

    def __init__(self, address: str, process: subprocess.Popen, errors: Path) -> None:
        self.address, self.process, self.errors = address, process, errors


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


def data_url(content: bytes) -> str:
    """The content of a file as the page sends it."""
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


def content_of(url: str) -> bytes:
    """The content of a data URL in base64."""
    return base64.b64decode(url.partition(",")[2])


@contextmanager
def opened(browser: Browser, page: ServedPage, **window: object) -> Iterator[Page]:
    """Open the page in a tab of its own, and wait until it is there.

    Args:
        browser: to open it in.
        page: to open.
        window: arguments of Playwright's ``new_page``.
    """
    with browser.new_page(permissions=["camera"], **window) as tab:
        tab.set_default_timeout(PATIENCE)
        tab.goto(page.address)
        tab.wait_for_selector("#bars tr")
        yield tab


def draw(tab: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line on the sheet with the mouse, through points given as shares of its width and height."""
    box = tab.locator("#sheet").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place)
    tab.mouse.up()


def answer(tab: Page) -> str:
    """Wait for the answer on the page."""
    return tab.wait_for_function(f"{ANSWER} !== '{NOTHING}' && {ANSWER}").json_value()


def choose(tab: Page, file: Path) -> str:
    """Choose a picture's file on the page, and wait for the answer."""
    tab.click("#clear")
    tab.wait_for_function(f"{ANSWER} === '{NOTHING}'")
    tab.set_input_files("#file", file)
    return answer(tab)


def large_photo() -> bytes:
    """A JPEG file of 108 megapixels, as the largest phones take them."""
    photo = Image.new("L", (12_000, 9_000), 235)
    photo.paste(drawing(1000, ground=235).resize((6_000, 6_000)), (3_000, 1_500))
    return encoded(photo, "JPEG")


def needs_gradio() -> str | None:
    """Why the page can't be served here, or None."""
    from importlib.util import find_spec

    if os.name == "nt":
        return "needs signals as POSIX has them"
    return None if find_spec("gradio") else "needs Gradio: pip install -r requirements-demo.txt"
