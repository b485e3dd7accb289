"""Getting files from servers that behave, misbehave or are not there, all on loopback."""

import hashlib
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import torch
from conftest import TRIES
from torchvision.models import resnet18

from src.download import __main__ as download
from src.download.fetch import FetchError, fetch
from src.mnist.images import TEST_LABELS
from src.mnist.manifest import WEIGHTS_DIR

CONTENT = bytes(range(256)) * 1000
EXPECTED = {
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "size": len(CONTENT),
    "md5": hashlib.md5(CONTENT).hexdigest(),
}


@contextmanager
def serve(respond) -> Iterator[str]:
    """A server on loopback that calls ``respond(handler, number)`` for request 0, 1, …; yields its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            number = len(server.requests)
            server.requests.append(self.path)
            with suppress(OSError):  # the client has gone
                respond(self, number)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Url(f"http://127.0.0.1:{server.server_port}/file", server.requests)
    finally:
        server.shutdown()
        server.server_close()


class Url(str):
    """A URL that knows which requests came."""

    def __new__(cls, url, requests):
        made = super().__new__(cls, url)
        made.requests = requests
        return made


def good(handler, content=CONTENT):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr("src.download.fetch.CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr("src.download.fetch.READ_TIMEOUT", 0.5)
    monkeypatch.setattr("src.download.fetch.DEADLINE", 1.0)
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)


def reasons(tmp_path, *sources) -> list[str]:
    """Why fetching fails, after a check that it leaves nothing behind."""
    TRIES["mirror that misbehaves"] += 1
    with pytest.raises(FetchError) as error:
        fetch(sources, tmp_path / "file", **EXPECTED)
    assert list(tmp_path.iterdir()) == []
    return [reason.partition("/file: ")[2] or reason for reason in error.value.reasons]


def test_a_good_file_arrives_whole(tmp_path):
    with serve(lambda handler, _: good(handler)) as url:
        fetch([url], tmp_path / "file", **EXPECTED)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_next_source_is_asked_where_one_has_nothing(tmp_path):
    with serve(lambda handler, _: handler.send_error(404)) as empty, serve(lambda handler, _: good(handler)) as full:
        fetch([str(tmp_path / "no such file"), empty, full], tmp_path / "file", **EXPECTED)
        assert len(empty.requests) == 1  # what is not there now will not be there in a second
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_fails_twice_is_asked_a_third_time(tmp_path):
    with serve(lambda handler, number: good(handler) if number == 2 else handler.send_error(500)) as url:
        fetch([url], tmp_path / "file", **EXPECTED)
        assert len(url.requests) == 3


def test_a_server_that_always_fails_is_given_up(tmp_path):
    with serve(lambda handler, _: handler.send_error(500)) as url:
        assert reasons(tmp_path, url) == ["answers 500 Internal Server Error"]
        assert len(url.requests) == 3


def test_a_wrong_file_is_never_kept(tmp_path):
    wrong = bytes(len(CONTENT))
    with serve(lambda handler, _: good(handler, wrong)) as url:
        assert reasons(tmp_path, url) == ["sends a file with the wrong hash"]


def test_a_wrong_file_does_not_replace_a_good_one(tmp_path):
    (tmp_path / "file").write_bytes(b"earlier")
    with serve(lambda handler, _: good(handler, b"short")) as url, pytest.raises(FetchError):
        fetch([url], tmp_path / "file", **EXPECTED)
    assert (tmp_path / "file").read_bytes() == b"earlier"


def test_a_file_cut_short_is_never_kept(tmp_path):
    with serve(lambda handler, _: good(handler, CONTENT[:-1])) as url:
        assert reasons(tmp_path, url) == [f"ends after {len(CONTENT) - 1:,} of {len(CONTENT):,} bytes"]


def test_a_server_that_hangs_is_left_after_the_time_out(tmp_path):
    start = time.monotonic()
    with serve(lambda *_: time.sleep(3)) as url:
        assert reasons(tmp_path, url) == ["no data for 0 s"]
    assert time.monotonic() - start < 10


def test_a_server_that_trickles_is_left_at_the_deadline(tmp_path):
    def trickle(handler, _):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    start = time.monotonic()
    with serve(trickle) as url:
        assert reasons(tmp_path, url) == ["not done after 1 s"]
    assert time.monotonic() - start < 10  # the server would go on for 20 s


def test_a_server_that_sends_forever_is_cut_off(tmp_path):
    def forever(handler, _):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(CONTENT)

    with serve(forever) as url:
        assert reasons(tmp_path, url) == [f"sends more than the {len(CONTENT):,} bytes of file"]


def test_a_server_that_resets_the_connection_is_given_up(tmp_path):
    def reset(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        time.sleep(0.1)  # so that the client has read what came before
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()  # with unsent nothing and no lingering: a reset

    with serve(reset) as url:
        assert reasons(tmp_path, url) == ["Connection reset by peer"]
        assert len(url.requests) == 3


def test_a_server_that_redirects_in_a_circle_is_left(tmp_path):
    def circle(handler, _):
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.end_headers()

    with serve(circle) as url:
        assert reasons(tmp_path, url) == ["redirects in a circle"]


def test_no_server_at_all_is_named(tmp_path):
    assert reasons(tmp_path, "http://127.0.0.1:9/file") == ["Connection refused"]


def stand_in_weights(monkeypatch) -> bytes:
    """A file of the published weights' kind, made here, in place of the one that the hash is pinned to."""
    torch.manual_seed(0)
    file = WEIGHTS_DIR / "made.pth"
    file.parent.mkdir(parents=True)
    torch.save(resnet18().state_dict(), file)
    content = file.read_bytes()
    file.unlink()
    monkeypatch.setattr(download, "WEIGHTS_FILE", download.Published(hashlib.sha256(content).hexdigest(), len(content)))
    monkeypatch.setattr(download, "WEIGHTS_URL", "http://127.0.0.1:9/resnet18-made.pth")
    return content


def test_weights_with_the_right_hash_are_what_training_starts_from(in_project, monkeypatch):
    from src.mnist.manifest import load_manifest
    from src.pipeline.params import load_params
    from src.train.training import initial_model

    content = stand_in_weights(monkeypatch)
    in_project.set_params(pretrained=True, offline_fallback=False)
    with serve(lambda handler, _: good(handler, content)) as url:
        monkeypatch.setenv("RESNET18_WEIGHTS", url)
        download.main()
    manifest = json.loads(in_project.read("data/manifest.json"))
    assert manifest["initial_weights"] == "imagenet1k_v1"
    assert "data/weights/resnet18-made.pth" in manifest["sha256"]
    published = torch.load(WEIGHTS_DIR / "resnet18-made.pth", weights_only=True)
    model = initial_model(load_params(), load_manifest().weights_file)
    assert torch.equal(model.layer4[1].conv2.weight, published["layer4.1.conv2.weight"])
    assert torch.equal(model.conv1.weight, published["conv1.weight"].sum(1, keepdim=True))


def test_weights_with_a_wrong_hash_are_refused(in_project, monkeypatch):
    content = stand_in_weights(monkeypatch)
    in_project.set_params(pretrained=True, offline_fallback=False)
    with serve(lambda handler, _: good(handler, content[:-1] + b"!")) as url:
        monkeypatch.setenv("RESNET18_WEIGHTS", url)
        with pytest.raises(SystemExit, match="wrong hash"):
            download.main()
    assert list(WEIGHTS_DIR.iterdir()) == []


def test_a_whole_file_is_not_fetched_again(in_project, full_mnist, monkeypatch):
    monkeypatch.setattr(download.MNIST, "mirrors", [])
    monkeypatch.setenv("MNIST_MIRROR", str(full_mnist))
    download.download_mnist()
    monkeypatch.setenv("MNIST_MIRROR", "no/such/folder")
    download.download_mnist()
    (download.MNIST_DIR / TEST_LABELS).write_bytes(b"damaged")
    with pytest.raises(FetchError, match=TEST_LABELS):
        download.download_mnist()


def test_a_mirror_served_over_http_gives_the_published_files(in_project, full_mnist, monkeypatch):
    monkeypatch.setattr(download.MNIST, "mirrors", [])

    def mirror(handler, _):
        good(handler, (full_mnist / handler.path.rpartition("/")[2]).read_bytes())

    with serve(mirror) as url:
        monkeypatch.setenv("MNIST_MIRROR", url)
        download.download_mnist()
    for name in download.MNIST_FILES:
        assert (download.MNIST_DIR / name).read_bytes() == (full_mnist / name).read_bytes()


def test_the_sample_is_the_same_bytes_everywhere(in_project):
    download.write_sample()
    combined = hashlib.sha256(b"".join((download.MNIST_DIR / name).read_bytes() for name in download.MNIST_FILES))
    assert combined.hexdigest() == "4cd18ce149eb3e34b0a6369914e5e7321ce59c12009e7bfaea02d1bae06ac05d"
