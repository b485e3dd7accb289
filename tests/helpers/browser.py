"""DVC's page of plots in a real browser: made readable without the web, opened, and read back."""

import functools
import html
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CDN = "https://cdn.jsdelivr.net/npm/"
RECORDER = """<script>
  const record = message => document.documentElement.append(Object.assign(document.createElement("pre"),
    {className: "recorded-error", textContent: message}));
  addEventListener("error", event => record(event.message ?? `${event.target.src} does not load`), true);
  addEventListener("unhandledrejection", event => record(event.reason));
  console.error = record;
</script>"""
LAST_LIBRARY = '<script src="vega-embed.js"></script>'
DRAW_SVG = '<script>const embed = vegaEmbed; vegaEmbed = (at, spec) => embed(at, spec, {renderer: "svg"});</script>'


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def libraries(page: str) -> list[str]:
    """The packages that a page of DVC's loads from the web, in order, as ``name@version``."""
    return re.findall(rf'"{CDN}(.+?)"', page)


def bring_libraries(folder: Path) -> str:
    """Put the libraries of ``folder``'s page beside it, by npm in the same versions; have the page load these.

    Returns:
        Npm's error, or an empty text.
    """
    page = (folder / "index.html").read_text()
    command = ["npm", "pack", "--silent", *libraries(page)]
    try:
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "no answer within 120 s"
    if packed.returncode != 0:
        return packed.stderr or "npm failed"
    for package in libraries(page):
        name, _, version = package.partition("@")
        with tarfile.open(folder / f"{name}-{version}.tgz") as archive:
            (folder / f"{name}.js").write_bytes(archive.extractfile(f"package/build/{name}.min.js").read())
        page = page.replace(f"{CDN}{package}", f"{name}.js")
    (folder / "index.html").write_text(page)
    return ""


def make_readable(folder: Path) -> None:
    """Have ``folder``'s page record its errors, and draw its plots as SVG, whose marks have labels."""
    page = (folder / "index.html").read_text()
    page = page.replace("<head>", f"<head>{RECORDER}", 1)
    page = page.replace(LAST_LIBRARY, LAST_LIBRARY + DRAW_SVG, 1)
    (folder / "index.html").write_text(page)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder, and give its address. From files, Chromium would keep the scripts' errors from the page."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def open_page(browser: str, address: str) -> str:
    """Open a page; return the HTML that it has become once its scripts have run."""
    command = [browser, "--headless", "--no-sandbox", "--virtual-time-budget=20000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def errors(page: str) -> list[str]:
    """The errors that an opened page recorded."""
    return re.findall(r'class="recorded-error">(.*?)</pre>', page, re.S)


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
