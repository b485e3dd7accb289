"""The page to draw digits on: ``python -m src.reader.page``, in a real browser and by its API."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec

import psutil
import pytest
import requests
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.demo import draw
from pictures import drawing, encoded, huge
from src.pipeline.process import UserError
from src.reader.page import app
from src.reader.picture import read_grey
from src.reader.recognise import EMPTY, load_classifier, recognise
from src.resnet.machine import Machine

WATCHED = """
import runpy, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[1][0] if event == "socket.connect" else arguments[0]
        if host not in ("127.0.0.1", "localhost", None):
            print(f"network: {event} {host}", file=sys.stderr, flush=True)
sys.addaudithook(note)
sys.argv[0] = "demo"
runpy.run_module("src.reader.page", run_name="__main__")
"""  # says on stderr whom the server would ask elsewhere
TEMPTING = dict.fromkeys(("GRADIO_SHARE", "GRADIO_ANALYTICS_ENABLED", "GRADIO_SSR_MODE", "GRADIO_MCP_SERVER"), "True")
TEMPTING |= {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ROOT_PATH": "/elsewhere"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MADE_UP_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
READY = "!!document.querySelector('canvas')?.onpointerup"  # the sheet takes strokes
NO_BARS = {}

pytestmark = pytest.mark.skipif(
    os.name == "nt" or not find_spec("gradio"),
    reason="needs POSIX's signals, and Gradio: pip install -r requirements-demo.txt",
)


@pytest.fixture(scope="module")
def page(reader_once, tmp_path_factory):
    """The server's process; at the end Ctrl-C must end it in good order.

    Attributes:
        address: the page's URL, with a final slash.
        errors: the file that holds what the server wrote on stderr.
    """
    errors = tmp_path_factory.mktemp("page") / "errors"
    command, env = [sys.executable, "-c", WATCHED, "--port", "0"], reader_once.environment() | TEMPTING
    options = {"cwd": reader_once.path, "env": env, "stdout": subprocess.PIPE, "text": True}
    with errors.open("w") as stderr, subprocess.Popen(command, stderr=stderr, **options) as process:
        try:
            line = process.stdout.readline()
            assert re.fullmatch(r"demo: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line), line + errors.read_text()
            process.address, process.errors = line.split()[1], errors
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


@pytest.fixture
def tab(page):
    """The page, opened in a browser without a window, whose camera is a made-up one."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=MADE_UP_CAMERA) as browser,
        browser.new_page(permissions=["camera"]) as tab,
    ):
        tab.set_default_timeout(60_000)
        tab.goto(page.address)
        tab.wait_for_function(READY)
        yield tab


def wait_for_bars(tab, count=10):
    """Wait until so many probabilities are shown."""
    tab.wait_for_function(f"document.querySelector('#probabilities').innerText.split('%').length === {count + 1}")


@pytest.fixture(scope="module")
def session():
    """Requests to the page without the user's proxy."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def read(page, session):
    """Send a picture's content as the page does; get what it shows of the probabilities, the pixels and the warning."""

    def ask(content: bytes) -> list:
        sent = session.post(f"{page.address}gradio_api/upload", files={"files": ("picture.png", content)}, timeout=60)
        picture = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
        answer = session.post(f"{page.address}gradio_api/run/picture", json={"data": [picture]}, timeout=60)
        return answer.json()["data"]

    return ask


@pytest.mark.parametrize("digit", ["5", "12", "A"])
def test_it_answers_as_predict_does(read, session, reader_once, digit):
    content = encoded(drawing(digit=digit))
    classifier = load_classifier(reader_once.path / "models/model.onnx", Machine(torch.device("cpu"), torch.float32))
    (expected,) = recognise([read_grey(io.BytesIO(content))], classifier)

    probabilities, pixels, warning = read(content)

    given = {row["label"]: row["confidence"] for row in probabilities["confidences"]}
    assert given == pytest.approx(expected.probabilities, abs=1e-4)
    assert warning == (expected.warning or "")
    with Image.open(io.BytesIO(session.get(pixels["url"], timeout=60).content)) as picture:
        small = picture.convert("L").resize((28, 28), Image.Resampling.NEAREST)
    assert small.tobytes() == expected.mnist_image.tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(encoded(Image.new("L", (50, 50), 255)), EMPTY, id="blank"),
        pytest.param(b"not a picture at all", "PNG, JPEG", id="a text"),
        pytest.param(huge(), "50000 × 50000", id="a bomb"),
    ],
)
def test_what_holds_no_digit_is_a_line_and_the_next_picture_is_answered(page, read, content, words):
    before = page.errors.stat().st_size

    probabilities, _, line = read(content)

    assert probabilities == NO_BARS
    assert words in line
    assert page.errors.stat().st_size == before  # no traceback
    assert read(encoded(drawing()))[0] != NO_BARS


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "", {"Host": "example.com"}, 400),
        ("POST", "gradio_api/upload", {"Host": "example.com"}, 400),
        ("POST", "gradio_api/upload", {"Origin": "http://example.com"}, 403),
        ("POST", "gradio_api/upload", {"Content-Length": str(app.LARGEST_UPLOAD + 2**21)}, 413),
        ("POST", "gradio_api/process_recording", {}, 404),
        ("POST", "login", {}, 404),
    ],
)
def test_what_the_page_does_not_send_itself_is_refused(page, session, method, path, headers, status):
    request = session.prepare_request(requests.Request(method, page.address + path))
    request.headers.update(headers | {"Connection": "close"})  # what it announces does not follow

    assert session.send(request, timeout=60).status_code == status


@pytest.mark.parametrize("path", ["/etc/hostname", "http://example.com/5.png", "https://example.com/5.png"])
def test_a_file_that_was_not_uploaded_is_refused_and_nothing_is_fetched(page, session, path):
    picture = {"path": path, "meta": {"_type": "gradio.FileData"}}

    answer = session.post(f"{page.address}gradio_api/run/picture", json={"data": [picture]}, timeout=60)

    assert answer.status_code == 500
    assert "network:" not in page.errors.read_text()


@pytest.mark.slow
def test_a_drawn_stroke_is_answered_and_nothing_is_asked_of_the_web(tab, page):
    addresses, errors = [], []
    tab.on("request", lambda request: addresses.append(request.url))
    tab.on("pageerror", lambda error: errors.append(error))
    tab.reload()
    tab.wait_for_function(READY)

    tab.evaluate("document.body.style.zoom = 1.5")  # the sheet's own pixels are smaller
    draw(tab, [(0.8, 0.5 + 0.04 * step) for step in range(11)])

    wait_for_bars(tab)
    tab.get_by_role("button", name="Clear").click()
    wait_for_bars(tab, 0)
    assert [url for url in addresses if not url.startswith((page.address, "data:", "blob:"))] == []
    assert "network:" not in page.errors.read_text()
    assert errors == []


@pytest.mark.slow
def test_a_chosen_picture_and_one_from_the_camera_are_answered(tab, tmp_path):
    (tmp_path / "5.heic").write_bytes(encoded(drawing(300), "HEIF"))
    tab.locator("input[type=file]").set_input_files(tmp_path / "5.heic")
    wait_for_bars(tab)

    tab.get_by_label("Remove Image").click()
    wait_for_bars(tab, 0)
    tab.get_by_label("Capture from camera").click()
    tab.get_by_text("Click to Access Webcam").click()
    tab.wait_for_function("document.querySelector('video').videoWidth")  # before that Gradio takes no picture
    tab.get_by_label("capture photo").click()
    tab.wait_for_function("document.querySelector('#warning textarea, #warning input').value")


def test_it_listens_on_the_loopback_address_alone(page):
    connections = psutil.Process(page.pid).net_connections("inet")

    assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_port_in_use_is_told_and_another_is_taken(capsys):
    with app.bind(0) as taken:
        port = taken.getsockname()[1]
        with app.bind(port) as listener:
            assert listener.getsockname()[1] != port

    assert str(port) in capsys.readouterr().out


def test_a_missing_model_is_a_clear_line(project, fails):
    fails(project.run("python", "-m", "src.reader.page", ok=False), "models/model.onnx", "make reader")


def test_without_gradio_the_line_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["demo"])

    with pytest.raises(UserError, match="make demo"):
        app.main()
