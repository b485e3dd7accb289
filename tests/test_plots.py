"""DVC's page of plots, opened in a real browser."""

import functools
import html
import re
import shutil
import subprocess
import tarfile
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CDN = "https://cdn.jsdelivr.net/npm/"
RECORDER = """<script>
  const record = message => document.documentElement.append(Object.assign(document.createElement("pre"),
    {className: "recorded-error", textContent: message}));
  addEventListener("error", event => record(event.message ?? `${event.target.src} does not load`), true);
  addEventListener("unhandledrejection", event => record(event.reason));
  console.error = record;
</script>"""
SVG = '<script>const embed = vegaEmbed; vegaEmbed = (at, spec) => embed(at, spec, {renderer: "svg"});</script>'


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium: from a page's address to the HTML that it has become once its scripts have run."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")

    def open_page(address: str) -> str:
        command = [program, "--headless", "--no-sandbox", "--virtual-time-budget=20000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return open_page


@pytest.fixture(scope="module")
def address(plots):
    """Where `plots` is served. From files, Chromium would keep the scripts' errors from the page."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=plots)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def plots(trained_once, tmp_path_factory):
    """The folder of ``dvc plots show``, its page with the libraries beside it, an ear for errors, and SVG plots.

    The page loads its libraries from the web; here npm brings the same versions of them.
    """
    folder = tmp_path_factory.mktemp("plots")
    trained_once.run("dvc", "plots", "show", "--out", str(folder))
    page = (folder / "index.html").read_text()
    packages = re.findall(rf'"{CDN}(.+?)"', page)
    assert [package.partition("@")[0] for package in packages] == ["vega", "vega-lite", "vega-embed"]
    if not shutil.which("npm"):
        pytest.skip("needs npm, for vega")
    packed = subprocess.run(
        ["npm", "pack", "--silent", *packages], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if packed.returncode != 0:
        pytest.skip(f"needs npm's registry, for vega: {packed.stderr}")
    for package in packages:
        name, _, version = package.partition("@")
        with tarfile.open(folder / f"{name}-{version}.tgz") as archive:
            (folder / f"{name}.js").write_bytes(archive.extractfile(f"package/build/{name}.min.js").read())
        page = page.replace(f"{CDN}{package}", f"{name}.js")
    page = page.replace("<head>", f"<head>{RECORDER}", 1)
    last = '<script src="vega-embed.js"></script>'
    (folder / "index.html").write_text(page.replace(last, last + SVG))
    return folder


def errors(page):
    return re.findall(r'class="recorded-error">(.*?)</pre>', page, re.S)


def marks(page, *names):
    """The values of the marks that carry all these names, from the labels that screen readers get."""
    found = set()
    for label in re.findall(r'aria-label="(.*?)"', html.unescape(page)):
        values = dict(part.split(": ", 1) for part in label.split("; ") if ": " in part)
        if values.keys() >= set(names):
            found.add(tuple(values[name] for name in names))
    return found


def test_the_page_draws_the_curves_the_matrix_and_the_pictures_without_an_error(browser, address, trained_once):
    page = browser(f"{address}/index.html")
    assert errors(page) == []
    for metric, label in (("loss", "mean cross-entropy per image"), ("accuracy", "share of images classified right")):
        drawn = [(name, float(value)) for name, value in marks(page, "filename", label)]
        for name in ("train", "validation", "test"):
            (row,) = trained_once.read(f"metrics/train/plots/metrics/{name}/{metric}.tsv").splitlines()[1:]
            assert (f"{name}/{metric}.tsv", pytest.approx(float(row.split()[1]))) in drawn
    pairs = Counter(tuple(row.split(",")) for row in trained_once.read("metrics/evaluate/predictions.csv").split()[1:])
    cells = {(actual, predicted): int(n) for actual, predicted, n in marks(page, "actual", "predicted", "xy_count")}
    assert {pair: count for pair, count in cells.items() if count} == pairs
    assert len(re.findall(r'<img src="static/workspace_metrics_evaluate_\w+\.png"', page)) == 4


def test_an_error_on_the_page_would_have_been_noticed(browser, address, plots):
    page = (plots / "index.html").read_text()
    (plots / "broken.html").write_text(page.replace("vega-lite.js", "no.js").replace("static/workspace", "static/no"))
    seen = "\n".join(errors(browser(f"{address}/broken.html")))
    for error in ("no.js does not load", "no_metrics_evaluate_mistakes.png does not load", "TypeError"):
        assert error in seen


def test_plots_diff_puts_the_pictures_of_two_commits_side_by_side(trained):
    before = (trained.path / "metrics/evaluate/reliability.png").read_bytes()
    picture = Image.open(trained.path / "metrics/evaluate/reliability.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.save(trained.path / "metrics/evaluate/reliability.png")
    trained.commit("another picture")
    trained.run("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "diff")
    page = trained.read("diff/index.html")
    for name in ("learning_curves", "confusion_matrix", "mistakes", "reliability"):
        sources = sorted(re.findall(rf'<img src="(.+_{name}\.png)"', page), key=len)
        assert [source.partition("_")[0] for source in sources] == ["static/HEAD", "static/HEAD~1"]
    shown = [(trained.path / "diff" / source).read_bytes() for source in sources]
    assert shown == [(trained.path / "metrics/evaluate/reliability.png").read_bytes(), before]
