"""A page to draw digits on: ``python -m src.reader.page``. It stays on this machine, and needs no network."""

from src.pipeline.process import UserError, before_imports, exit_on_user_error, run_and_exit

if __name__ == "__main__":
    before_imports()

import argparse
import base64
import io
import socket
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import numpy as np
from PIL import Image

from src.pipeline.paths import ONNX_FILE
from src.reader.picture import read_grey
from src.reader.recognise import Reading, load_classifier, read_digits
from src.resnet.inference import AnsweringModel
from src.resnet.machine import set_up_machine

if TYPE_CHECKING:
    from gradio import Blocks

HOME = Path(__file__).parents[2]  # the project's folder, whichever is the current one
PAGE = Path(__file__).with_name("page")
LOOPBACK, PORT, TRIES, LAST_PORT = "127.0.0.1", 7860, 100, 65535


@exit_on_user_error
def main() -> None:
    arguments = parse_arguments()
    if find_spec("gradio") is None:
        raise UserError("Gradio is not installed; run `make demo`, or `pip install -r requirements-demo.txt`")
    # One image at a time gains nothing from a second thread, which waits for the first by spinning.
    classifier = load_classifier(arguments.model, set_up_machine("auto", "fp32", threads=1))
    with bind(arguments.port) as listener:
        serve(build_page(PageReader(classifier)), listener)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.reader.page", description="A page to draw digits on.")
    parser.add_argument(
        "--model", type=Path, default=HOME / ONNX_FILE, metavar="FILE", help="as in predict.py (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=PORT, help="or the next that is free; 0 for any (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= LAST_PORT:
        parser.error(f"--port {arguments.port} is none of 0 to {LAST_PORT}")
    return arguments


def bind(first: int) -> socket.socket:
    """Listen on the loopback address, at port ``first`` or the next that can be had; 0 stands for any.

    Raises:
        UserError: none of `TRIES` ports can be had.
    """
    last = min(first + TRIES - 1, LAST_PORT)
    for port in range(first, last + 1):
        try:
            listener = socket.create_server((LOOPBACK, port))
        except OSError as error:
            if port == first:
                print(f"demo: port {first} can't be had: {error.strerror}")
        else:
            return listener
    raise UserError(f"no port from {first} to {last} can be had; run `python -m src.reader.page --port 0`")


def serve(page: "Blocks", listener: socket.socket) -> None:
    """Serve the page until Ctrl-C. Nothing of Gradio's that asks the web or the environment is left on."""
    import fastapi
    import gradio
    import uvicorn

    app = gradio.mount_gradio_app(
        fastapi.FastAPI(),
        page,
        path="/",
        server_name=LOOPBACK,
        server_port=listener.getsockname()[1],
        footer_links=[],
        run_history=False,
        root_path="",
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        css=(PAGE / "page.css").read_text(encoding="utf-8"),
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    print(f"demo: http://{LOOPBACK}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises again once it has shut down
        print("demo: ended")


def build_page(reader: "PageReader") -> "Blocks":
    """Build the page: a sheet whose picture is read whenever it changes, and the answer beside it."""
    import gradio

    parts = {}
    with gradio.Blocks(analytics_enabled=False, title="Draw a digit") as page:
        gradio.HTML("<h1>Draw a digit</h1>", js_on_load=None)
        with gradio.Row():
            for name in ("sheet", "answer"):
                with gradio.Column(min_width=300):
                    parts[name] = gradio.HTML(
                        html_template=(PAGE / f"{name}.html").read_text(encoding="utf-8"),
                        js_on_load=(PAGE / f"{name}.js").read_text(encoding="utf-8"),
                        apply_default_css=False,
                    )
        # No queue: its event stream looks for answers every 50 ms. Of drawings that come while one is read, the last
        # is read next.
        parts["sheet"].input(
            reader.read,
            *parts.values(),
            api_name="read",
            queue=False,
            trigger_mode="always_last",
            show_progress="hidden",
        )
    return page


class PageReader:
    """Reads the pictures that the page sends, one at a time: a large photo takes hundreds of MB."""

    def __init__(self, classifier: AnsweringModel) -> None:
        self._classifier = classifier
        self._lock = threading.Lock()

    def read(self, picture: str) -> dict[str, Any] | None:
        """Read the digit in a picture.

        Args:
            picture: the content of an image file as a data URL, ``data:image/png;base64,...``; "" for none.

        Returns:
            ``digit`` and ``probabilities``, one for each digit, null for an empty picture; ``warning``, null where
            there is a single digit; ``picture`` as it was read and ``form``, the 28 × 28 pixels that the network saw,
            as data URLs; ``error``, null but where the picture can't be read: then the others are null. Nothing for no
            picture.
        """
        if not picture:
            return None
        with self._lock:
            try:
                grey = read_grey(io.BytesIO(decode(picture)))
            except ValueError as error:
                return dict.fromkeys(("digit", "probabilities", "warning", "picture", "form")) | {"error": str(error)}
            (reading,) = read_digits([grey], self._classifier)
        return as_answer(reading, self._classifier.class_names) | {"picture": encode(grey.round().astype(np.uint8))}


def as_answer(reading: Reading, class_names: list[str]) -> dict[str, Any]:
    """Write a reading as JSON has it."""
    shares = None if reading.probabilities is None else reading.probabilities.tolist()
    return {
        "digit": None if shares is None else int(class_names[shares.index(max(shares))]),
        "probabilities": None if shares is None else [shares[class_names.index(str(digit))] for digit in range(10)],
        "warning": reading.warning,
        "form": encode(reading.form),
        "error": None,
    }


def decode(url: str) -> bytes:
    """Decode the content of a data URL.

    Raises:
        ValueError: it is none.
    """
    head, comma, body = url.partition(",")
    if not (head.startswith("data:") and comma):
        raise ValueError("no data URL")
    return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)


def encode(grey: np.ndarray) -> str:
    """Encode grey levels (H, W) uint8 as the data URL of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


if __name__ == "__main__":
    run_and_exit(main)
