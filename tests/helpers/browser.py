"""A real browser for the tests, by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
TIMEOUT = 60_000  # milliseconds


def no_browser() -> str | None:
    """Why there is no browser here, or None."""
    return None if find_browser() else f"needs one of {', '.join(PROGRAMS)}"


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def started() -> Iterator[Browser]:
    """Start a Chromium without a window, whose camera is a made-up one."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=find_browser(), args=CAMERA) as browser,
    ):
        yield browser
