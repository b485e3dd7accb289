"""The page to draw digits on: ``python -m src.reader.page``, in a real browser and by its API."""

import io
import math
import re
import sys

import numpy as np
import psutil
import pytest
import torch
from helpers.page import (
    ANSWER,
    NOTHING,
    answer,
    choose,
    content_of,
    data_url,
    draw,
    large_photo,
    needs_gradio,
    opened,
    served_page,
)
from helpers.pictures import drawing, encoded, huge
from PIL import Image

from src.pipeline.process import UserError
from src.resnet.machine import Machine
from src.predict import demo
from src.reader.picture import read_grey
from src.reader.recognise import load_classifier, read_digits

ONE = [(0.5, 0.2 + 0.06 * step) for step in range(11)]
ZERO = [(0.5 + 0.2 * math.sin(angle), 0.5 - 0.3 * math.cos(angle)) for angle in np.linspace(0, 2 * math.pi, 20)]
UNREADABLE = {  # what is chosen, and what the page says of it
    "a text": (b"no picture at all", "no picture of the kinds PNG, JPEG"),
    "0 bytes": (b"", "no picture of the kinds PNG, JPEG"),
    "a half": (encoded(drawing())[:300], "can't be read as a picture"),
    "a bomb": (huge(), "50000 × 50000 pixels take"),
}


@pytest.fixture(scope="module")
def page(trained_once, tmp_path_factory):
    """The page, served for the model of one epoch."""
    if reason := needs_gradio():
        pytest.skip(reason)
    with served_page(trained_once, tmp_path_factory.mktemp("page") / "errors") as page:
        yield page


@pytest.fixture
def tab(browser, page):
    """The page, opened in a tab of its own."""
    with opened(browser, page) as tab:
        yield tab


@pytest.fixture(scope="module")
def read(page):
    """The page's API: a picture's content, or a data URL, to its answer."""
    from gradio_client import Client

    with pytest.MonkeyPatch.context() as patch:
        for variable in ("NO_PROXY", "no_proxy"):  # the client would ask the user's proxy for this machine's page
            patch.setenv(variable, "127.0.0.1")
        client = Client(page.address, verbose=False, analytics_enabled=False)

    def ask(picture: bytes | str) -> dict:
        url = picture if isinstance(picture, str) else data_url(picture)
        return client.predict(url, api_name="/read")

    return ask


@pytest.fixture(scope="module")
def classifier(trained_once):
    """The model that the page asks."""
    return load_classifier(trained_once.path / "models/model.onnx", Machine(torch.device("cpu"), torch.float32))


@pytest.mark.slow
@pytest.mark.parametrize("strokes", [ONE, ZERO], ids=["a 1", "a 0"])
def test_a_drawing_is_answered_as_predict_answers_it(tab, classifier, strokes):
    draw(tab, strokes)

    drawn = content_of(tab.evaluate("document.querySelector('#sheet').toDataURL()"))
    (expected,) = read_digits([read_grey(io.BytesIO(drawn))], classifier)
    of_all = f"document.querySelector('#form')?.src === '{demo.encode(expected.form)}'"  # not of a part of it
    tab.wait_for_function(of_all)
    assert answer(tab).endswith(f"{expected.probabilities.argmax()}, {expected.probabilities.max():.2%}.")
    shares = tab.evaluate("[...document.querySelectorAll('#bars .share')].map(cell => cell.textContent)")
    assert shares == [f"{share:.2%}" for share in expected.probabilities.tolist()]
    assert tab.page_errors() == []
    assert [message.text for message in tab.console_messages() if message.type == "error"] == []


@pytest.mark.slow
def test_a_well_trained_model_reads_a_drawn_1_and_0(trained_once, browser, tmp_path):
    if reason := needs_gradio():
        pytest.skip(reason)
    project = trained_once.copy(tmp_path / "project")
    project.set_params(epochs=5)
    project.run("dvc", "repro")

    with served_page(project, tmp_path / "errors") as page:
        for strokes, digit in ((ONE, 1), (ZERO, 0)):
            with opened(browser, page) as tab:
                draw(tab, strokes)
                tab.wait_for_function(f"/^{digit}, (100|[5-9])/.test({ANSWER})")


@pytest.mark.slow
def test_a_chosen_picture_stands_beside_what_the_network_saw(tab, tmp_path):
    (tmp_path / "5.heic").write_bytes(encoded(drawing(300), "HEIF"))

    said = choose(tab, tmp_path / "5.heic")

    sizes = tab.evaluate("['#picture', '#form'].map(id => document.querySelector(id).naturalWidth)")
    assert re.search(r"\d, \d+\.\d\d%\.$", said)
    assert sizes == [300, 28]


@pytest.mark.slow
def test_a_picture_from_the_camera_is_read(tab):
    tab.click("#shoot")
    tab.wait_for_function(
        "!document.querySelector('#camera').hidden && document.querySelector('#camera').videoWidth > 0"
    )
    tab.click("#shoot")

    assert "Not read" not in answer(tab)
    assert tab.evaluate("document.querySelector('#camera').hidden")


@pytest.mark.slow
def test_the_keyboard_draws_and_reaches_every_control_in_order(tab):
    reached = []
    for _ in range(4):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id"))
    tab.focus("#sheet")
    tab.keyboard.press("Space")
    for _ in range(12):
        tab.keyboard.press("ArrowDown")

    assert reached == ["sheet", "clear", "choose", "shoot"]
    assert answer(tab)
    tab.keyboard.press("Delete")
    tab.wait_for_function(f"{ANSWER} === '{NOTHING}'")


@pytest.mark.slow
def test_a_screen_reader_is_told_what_everything_is(tab):
    draw(tab, ONE)
    spoken = tab.wait_for_function("document.querySelector('#spoken').textContent").json_value()

    told = set(re.findall(r'^ *- (\w+)(?: "(.*?)")?', tab.aria_snapshot(), re.M))  # role and name of each

    assert spoken == tab.evaluate(ANSWER)
    assert {("heading", "Draw a digit"), ("table", "Probability of each digit")} <= told
    assert ("application", "Sheet to draw a digit on, by mouse, finger or keyboard") in told
    assert {name for role, name in told if role == "img"} == {
        "Your picture, in grey, as it was read",
        "The 28 by 28 pixels that the network saw",
    }
    assert "" not in {name for role, name in told if role in ("button", "img", "table")}


@pytest.mark.slow
def test_it_fits_a_phone(browser, page):
    with opened(browser, page, viewport={"width": 390, "height": 844}, is_mobile=True) as tab:
        draw(tab, ONE)
        answer(tab)

        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.locator("#sheet").bounding_box()["width"] >= 280


@pytest.mark.slow
def test_what_cannot_be_read_is_a_line_on_the_page_and_the_next_picture_is_answered(tab, tmp_path):
    file = tmp_path / "picture.png"
    for content, line in UNREADABLE.values():
        file.write_bytes(content)
        said = choose(tab, file)
        assert said.startswith("Not read: ")
        assert line in said

    file.write_bytes(encoded(drawing()))
    assert "Not read" not in choose(tab, file)


@pytest.mark.slow
def test_a_warning_stands_on_the_page(tab, tmp_path):
    (tmp_path / "blank.png").write_bytes(encoded(Image.new("L", (50, 50), 255)))

    assert choose(tab, tmp_path / "blank.png") == "Warning: an empty picture."


@pytest.mark.slow
def test_no_request_leaves_the_machine(tab, page, read):
    sockets, requests = [], []
    tab.on("websocket", lambda socket: sockets.append(socket.url))
    tab.on("request", lambda request: requests.append(request.url))
    tab.reload()
    tab.wait_for_selector("#bars tr")
    read(encoded(drawing()))
    elsewhere = [url for url in requests + sockets if not url.startswith((page.address, "data:", "about:"))]

    assert f"{page.address}theme.css" in {url.partition("?")[0] for url in requests}
    assert elsewhere == []
    assert "network:" not in page.errors.read_text()


def test_it_listens_on_the_loopback_address_alone(page):
    connections = psutil.Process(page.process.pid).net_connections("inet")

    assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


@pytest.mark.parametrize("digit", ["5", "12", "A"])
def test_the_api_answers_as_predict_does(read, classifier, digit):
    content = encoded(drawing(digit=digit))
    (expected,) = read_digits([read_grey(io.BytesIO(content))], classifier)

    answer = read(content)

    assert answer["digit"] == expected.probabilities.argmax()
    assert answer["probabilities"] == pytest.approx(expected.probabilities.tolist(), abs=1e-4)
    assert (answer["warning"], answer["error"]) == (expected.warning, None)


@pytest.mark.parametrize("content", [content for content, _ in UNREADABLE.values()], ids=list(UNREADABLE))
def test_the_api_says_what_cannot_be_read(read, content):
    answer = read(content)

    assert answer["error"]
    assert answer["digit"] is answer["probabilities"] is None


@pytest.mark.parametrize("url", ["no URL", "data:image/png;base64,?", "http://127.0.0.1/5.png"])
def test_what_is_no_data_url_is_told(read, url):
    assert read(url)["error"]


def test_a_photo_of_108_megapixels_is_answered(read):
    assert read(large_photo())["error"] is None


def test_a_port_in_use_is_told_and_the_next_is_taken(capsys):
    with demo.bind(0) as taken:
        port = taken.getsockname()[1]
        with demo.bind(port) as listener:
            assert listener.getsockname()[1] > port

    assert capsys.readouterr().out.startswith(f"demo: port {port} can't be had: ")


def test_where_no_port_can_be_had_the_line_says_what_to_type(monkeypatch):
    monkeypatch.setattr(demo, "TRIES", 1)
    with demo.bind(0) as taken, pytest.raises(UserError, match="--port 0"):
        demo.bind(taken.getsockname()[1])


def test_a_missing_model_is_a_clear_line(project, fails):
    if reason := needs_gradio():
        pytest.skip(reason)

    done = project.run("python", "-m", "src.reader.page", ok=False)

    fails(done, "models/model.onnx", "dvc repro")


def test_without_gradio_the_line_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    monkeypatch.setattr(sys, "argv", ["demo"])

    with pytest.raises(SystemExit, match=r"^error: Gradio is not installed; run `make demo`"):
        demo.main()
