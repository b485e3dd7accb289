"""A page to draw digits on: ``python -m src.reader.page``. It stays on this machine, and needs no network."""

import argparse
import base64
import io
import os
import socket
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from src.pipeline.process import UserError
from src.pipeline.project import ROOT
from src.reader.export.onnx_classifier import ONNX_FILE
from src.reader.picture import read_grey
from src.reader.recognise import Classifier, load_classifier, recognise
from src.resnet.machine import set_up_machine

if TYPE_CHECKING:
    from gradio import Blocks
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

LOOPBACK, PORT = "127.0.0.1", 7860
HOSTS = (LOOPBACK, "localhost")  # that the page answers to: another site's name may lead to this machine, too
SENT_TO = tuple(f"/gradio_api/{name}" for name in ("run/", "component_server", "upload"))
LARGEST_UPLOAD = 100 * 2**20  # bytes: three times a phone's largest photo
KEPT = 600  # seconds, a picture and the pixels seen, for the browser to show
CANVAS = 280  # pixels, the side of the sheet
ZOOM = 8  # the pixels seen are shown so much larger
# Gradio's own sheet answers two seconds after a stroke: it draws by WebGL, and sends each drawing as three files.
SHEET = f'<canvas width="{CANVAS}" height="{CANVAS}"></canvas><br><button>Clear</button>'
SHEET_STYLE = "canvas { border: 1px solid #888; touch-action: none } button { text-decoration: underline }"
DRAW = """
const canvas = element.querySelector("canvas"), pen = canvas.getContext("2d");
const clear = () => { pen.fillStyle = "white"; pen.fillRect(0, 0, canvas.width, canvas.height); };
const line = (event) => {
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;  // not 1 on a page that is zoomed
  pen.lineTo(scale * (event.clientX - box.x), scale * (event.clientY - box.y));
  pen.stroke();
};
clear();
Object.assign(pen, { lineWidth: 20, lineCap: "round", lineJoin: "round" });
canvas.onpointerdown = (event) => { canvas.setPointerCapture(event.pointerId); pen.beginPath(); line(event); };
canvas.onpointermove = (event) => { if (event.buttons) line(event); };
canvas.onpointerup = () => trigger("input", { picture: canvas.toDataURL() });
element.querySelector("button").onclick = () => { clear(); trigger("clear"); };
"""

Answer = tuple[dict[str, float], np.ndarray | None, str]
NOTHING: Answer = ({}, None, "")


def main() -> None:
    arguments = parse_arguments()
    if find_spec("gradio") is None:
        raise UserError("Gradio is not installed; run `make demo`, or `pip install -r requirements-demo.txt`")
    # One image at a time gains nothing from a second thread, which waits for the first by spinning.
    classifier = load_classifier(arguments.model, set_up_machine("auto", "fp32", threads=1))
    with bind(arguments.port) as listener, tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # no picture stays behind
        serve(build_page(classifier), listener)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m src.reader.page", description="A page to draw digits on.")
    parser.add_argument(
        "--model", type=Path, default=ROOT / ONNX_FILE, metavar="FILE", help="as in predict.py (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=PORT, help="where it is free, else another (default: %(default)s)")
    arguments = parser.parse_args()
    if not 0 <= arguments.port < 2**16:
        parser.error(f"--port {arguments.port}: must be from 0 to {2**16 - 1}")
    return arguments


def bind(port: int) -> socket.socket:
    """Listen on the loopback address, at a port where it is free and else at another."""
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        print(f"demo: port {port}: {error.strerror}; taking another")
        return socket.create_server((LOOPBACK, 0))


def build_page(classifier: Classifier) -> "Blocks":
    """Build the page: a sheet to draw on and a place for pictures, and what the model says of the last of either."""
    import gradio

    lock = threading.Lock()  # one picture at a time: a large photo takes hundreds of MB

    def read(file: BinaryIO) -> Answer:
        try:
            with lock:
                (reading,) = recognise([read_grey(file)], classifier)
        except ValueError as error:
            return {}, None, f"Not read: {error}"
        pixels = np.kron(reading.mnist_image, np.ones((ZOOM, ZOOM), np.uint8))
        return reading.probabilities, pixels, reading.warning or ""

    def read_drawing(stroke: gradio.EventData) -> Answer:
        return read(io.BytesIO(base64.b64decode(stroke.picture.partition(",")[2])))  # of a data URL

    def read_picture(file: str | None) -> Answer:
        if file is None:
            return NOTHING
        with Path(file).open("rb") as opened:
            return read(opened)

    with gradio.Blocks(analytics_enabled=False, title="Draw a digit", delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown("# Draw a digit")
        with gradio.Row():
            with gradio.Column(min_width=320):
                gradio.Markdown("Draw with the mouse or a finger.")
                sheet = gradio.HTML(html_template=SHEET, css_template=SHEET_STYLE, js_on_load=DRAW)
                picture = gradio.Image(
                    label="Or drop, paste, choose or take a picture",
                    height=CANVAS,
                    webcam_options=gradio.WebcamOptions(mirror=False),
                    buttons=[],
                )
                # The file as it came: Gradio's own reader knows fewer formats, and fails with a traceback.
                picture.preprocess = lambda payload: payload.path if payload else None
            with gradio.Column(min_width=320):
                probabilities = gradio.Label(
                    label="Probability of each digit", num_top_classes=10, show_heading=False, elem_id="probabilities"
                )
                pixels = gradio.Image(
                    label="The 28 × 28 pixels that the network saw",
                    format="png",
                    buttons=[],
                    height=CANVAS,
                    elem_id="pixels",
                )
                warning = gradio.Textbox(label="Warning", interactive=False, elem_id="warning")
        # No queue: its event stream looks for answers every 50 ms. Of drawings that come while one is read, the last is
        # read next.
        options: dict[str, Any] = {"queue": False, "trigger_mode": "always_last", "show_progress": "hidden"}
        options["outputs"] = [probabilities, pixels, warning]
        sheet.clear(lambda: NOTHING, api_visibility="private", **options)
        sheet.input(read_drawing, api_visibility="private", **options)
        picture.change(read_picture, picture, api_name="picture", **options)
    return page


def serve(page: "Blocks", listener: socket.socket) -> None:
    """Serve the page until Ctrl-C, behind what refuses others. Nothing of Gradio's that asks the web is left on."""
    import fastapi
    import gradio
    import uvicorn
    from gradio import processing_utils
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse

    async def stay_here(url: str) -> NoReturn:
        raise ValueError(f"{url} is not a picture of this machine")

    processing_utils.async_ssrf_protected_get = stay_here  # pyrefly: ignore  # Gradio would fetch a picture's URL
    page.has_launched = True  # else Gradio takes a request's word for which files of this machine were uploaded
    app = fastapi.FastAPI()

    @app.middleware("http")
    async def refuse(request: "Request", call_next: "RequestResponseEndpoint") -> "Response":
        status = refusal(request)
        return PlainTextResponse("refused", status) if status else await call_next(request)

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)  # this one is asked first
    gradio.mount_gradio_app(app, page, path="/", footer_links=[], run_history=False, max_file_size=LARGEST_UPLOAD)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    print(f"demo: http://{LOOPBACK}:{listener.getsockname()[1]}/ (Ctrl-C ends it)")
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises again once it has shut down
        print("demo: ended")


def refusal(request: "Request") -> int | None:
    """The HTTP status for what the page itself does not send: from another site, to another path, or too large."""
    if request.method in ("GET", "HEAD"):
        return None
    if request.headers.get("origin") not in (None, f"http://{request.headers.get('host')}"):
        return 403
    if not request.url.path.startswith(SENT_TO):
        return 404
    length = request.headers.get("content-length", "")
    return None if length.isdigit() and int(length) <= LARGEST_UPLOAD + 2**20 else 413  # with what a form adds
