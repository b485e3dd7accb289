"""How fast the page to draw digits on answers: ``python -m benchmarks.demo``, written to ``benchmarks/demo.json``.

It starts the real server on the reader's model. In a headless Chromium the time runs from the end of a stroke to the
pixels that follow. With ``--picture`` it takes the README's picture of the page, `docs/demo.png`, instead.
"""

import argparse
import io
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page, sync_playwright

from benchmarks.machine import processor_name
from benchmarks.pictures import md5
from src.pipeline.files import write_file, write_json
from src.pipeline.paths import MODEL_FILE
from src.pipeline.process import exit_code

RESULTS_FILE, PICTURE_FILE = Path("benchmarks/demo.json"), Path("docs/demo.png")
STROKES = 20
TOP, BOTTOM = ((0.5, 0.34), 0.13), ((0.5, 0.62), 0.15)  # a 3: the centres of its bows and their radii
# Notes when a stroke ends, and when other pixels are shown for the first time after it.
WATCH = """() => {
    const shown = () => document.querySelector("#pixels img")?.src;
    addEventListener("pointerup", () => {
        const ended = performance.now(), before = shown();
        const look = () => {
            if (shown() === before) requestAnimationFrame(look);
            else window.answered = performance.now() - ended;
        };
        window.answered = null;
        look();
    }, true);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--picture", action="store_true", help=f"take {PICTURE_FILE}")
    parser.add_argument("--browser", default="chromium", help="the program (%(default)s)")
    arguments = parser.parse_args()
    with serving() as address, opened(address, arguments.browser) as tab:
        if arguments.picture:
            draw(tab, three())
            tab.wait_for_function("/^3\\s+(9|100)/m.test(document.querySelector('#probabilities').innerText)")
            tab.wait_for_function("document.querySelector('#pixels img')?.naturalWidth > 0")
            write_file(PICTURE_FILE, with_model(tab.screenshot()))
            return
        of_strokes = stroke_times(tab)
    median, late = 1000 * statistics.median(of_strokes), 1000 * float(np.percentile(of_strokes, 90))
    print(f"demo: {len(of_strokes)} strokes are answered within {median:,.0f} ms (median), {late:,.0f} ms (90%)")
    machine = f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"
    results = {"machine": machine, "strokes": len(of_strokes), "median, ms": median, "90th percentile, ms": late}
    write_json(RESULTS_FILE, results)


@contextmanager
def serving() -> Iterator[str]:
    """Start the server on any port; give its address."""
    command = [sys.executable, "-m", "src.reader.page", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit(process.wait())  # it has said why
            yield line.split()[1]
        finally:
            process.terminate()


@contextmanager
def opened(address: str, program: str) -> Iterator[Page]:
    """Open the page in a browser without a window."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which(program) or program) as browser,
        browser.new_page(viewport={"width": 900, "height": 900}) as tab,
    ):
        tab.goto(address)
        tab.wait_for_function("!!document.querySelector('canvas')?.onpointerup")  # the sheet takes strokes
        yield tab


def draw(tab: Page, points: list[tuple[float, float]]) -> None:
    """Draw with the mouse through points that are shares of the sheet's width and height, as fast as a hand does."""
    sheet = tab.locator("canvas").first.bounding_box()
    for number, (x, y) in enumerate(points):
        tab.mouse.move(sheet["x"] + x * sheet["width"], sheet["y"] + y * sheet["height"])
        if number == 0:
            tab.mouse.down()
        tab.wait_for_timeout(16)
    tab.mouse.up()


def three() -> list[tuple[float, float]]:
    """The line of a 3."""
    return [
        (x + radius * math.sin(angle), y - radius * math.cos(angle))
        for ((x, y), radius), first, last in ((TOP, -1.2, 3.1), (BOTTOM, 0.0, 4.4))
        for angle in np.linspace(first, last, 15)
    ]


def stroke_times(tab: Page) -> list[float]:
    """Draw `STROKES` strokes, each upon the others; the seconds from each one's end to its answer."""
    tab.evaluate(WATCH)
    times = []
    for number in range(STROKES + 1):
        draw(tab, [(0.3 + 0.02 * number, 0.3 + 0.04 * step) for step in range(10)])
        times.append(tab.wait_for_function("window.answered").json_value() / 1000)
    return times[1:]  # the first loads what all need


def with_model(png: bytes) -> bytes:
    """Write into a picture which model it shows, by its MD5, as `dvc.lock` names it."""
    text, file = PngInfo(), io.BytesIO()
    text.add_text("model_md5", md5(MODEL_FILE))
    Image.open(io.BytesIO(png)).save(file, "PNG", pnginfo=text, optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(exit_code(main))
