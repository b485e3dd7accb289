"""A real browser for the tests, by Playwright; and DVC's page of plots in it, made readable without the web."""

import html
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Request, Route, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
CDN = "https://cdn.jsdelivr.net/npm/"
TIMEOUT = 60_000  # milliseconds
# Plots as SVG, whose marks have labels; and a promise for each, that it is drawn.
DRAW_SVG = b"""
  const embed = vegaEmbed, drawn = [];
  vegaEmbed = (at, spec) => { drawn.push(embed(at, spec, {renderer: "svg"})); return drawn.at(-1); };
"""


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


def libraries(page: str) -> list[str]:
    """The packages that a page of DVC's loads from the web, in order, as ``name@version``."""
    return re.findall(rf'"{CDN}(.+?)"', page)


def bring_libraries(folder: Path) -> str:
    """Put the libraries of ``folder``'s page beside it, by npm in the same versions.

    Returns:
        Npm's error, or an empty text.
    """
    packages = libraries((folder / "index.html").read_text())
    command = ["npm", "pack", "--silent", *packages]
    try:
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "no answer within 120 s"
    if packed.returncode != 0:
        return packed.stderr or "npm failed"
    for package in packages:
        name, _, version = package.partition("@")
        with tarfile.open(folder / f"{name}-{version}.tgz") as archive:
            script = archive.extractfile(f"package/build/{name}.min.js").read()
        (folder / package).write_bytes(script + (DRAW_SVG if name == "vega-embed" else b""))
    return ""


class Shown(NamedTuple):
    """A page as the browser shows it."""

    content: str  # the HTML that it has become
    errors: list[str]  # of its scripts, and of what does not load


def show(browser: Browser, file: Path) -> Shown:
    """Open a page of DVC's plots with the libraries that lie beside it, and wait until all is drawn."""
    errors: list[str] = []

    def answer(route: Route) -> None:
        library = file.parent / route.request.url.removeprefix(CDN)
        if library.is_file():
            route.fulfill(path=library, content_type="text/javascript")
        else:
            route.abort()

    def note(request: Request) -> None:
        errors.append(f"{request.url} does not load")

    with browser.new_page() as page:
        page.set_default_timeout(TIMEOUT)
        page.route(re.compile("^https?:"), answer)
        page.on("requestfailed", note)
        page.goto(file.as_uri())
        page.evaluate("typeof drawn === 'undefined' ? null : Promise.allSettled(drawn).then(() => null)")
        errors += [f"{error.name}: {error.message}" for error in page.page_errors()]
        errors += [message.text for message in page.console_messages() if message.type == "error"]
        return Shown(page.content(), errors)


def marks(page: str, *names: str) -> set[tuple[str, ...]]:
    """The values of the marks that carry all these names, from the labels that screen readers get."""
    found = set()
    for label in re.findall(r'aria-label="(.*?)"', html.unescape(page)):
        values = dict(part.split(": ", 1) for part in label.split("; ") if ": " in part)
        if values.keys() >= set(names):
            found.add(tuple(values[name] for name in names))
    return found


def numbers(page: str, *names: str) -> list[tuple[float, ...]]:
    """The same as numbers."""
    return [tuple(map(float, values)) for values in marks(page, *names)]
