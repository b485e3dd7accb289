"""The only stage that uses a network: servers that behave, misbehave or are not there, all on loopback."""

import gzip
import hashlib
import itertools
import os
import shutil
import socket
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import certifi
import numpy as np
import pytest
from helpers.project import needs_posix
from helpers.server import CLOSED, NO_NETWORK, self_signed_certificate, send, serve, write

from src.download import initial_weights
from src.download import stage as download
from src.download.fetch import FetchError, fetch
from src.download.published import PUBLISHED
from src.images.dataset import load_images, load_manifest, load_writers
from src.pipeline.files import sha256
from src.pipeline.paths import IMAGES_DIR, IMAGES_FILES, WRITERS_FILES
from src.pipeline.process import UserError

CONTENT = gzip.compress(bytes(range(256)) * 1000, mtime=0)
KNOWN_HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
WEIGHTS = Path("data/weights/resnet18-f37072fd.pth")
FULL_MNIST = Path(os.environ.get("MNIST_MIRROR") or "no folder").resolve()

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CONTENT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
REDIRECT = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Neither the user's variables nor the Internet: what is published is at a port where nobody listens."""
    for name in (*NO_NETWORK, "MNIST_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    for source in PUBLISHED.values():
        monkeypatch.setattr(source, "mirrors", [f"{CLOSED}one/", f"{CLOSED}two/"])
    nowhere = SimpleNamespace(name="IMAGENET1K_V1", url=CLOSED + WEIGHTS.name)
    monkeypatch.setitem(initial_weights.TORCHVISION, "resnet18", nowhere)
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)


@pytest.fixture
def refusal(capsys):
    """Fetch from one source that must fail, in time and when it was asked this often; return why, in one line."""

    def ask(source: str, attempts: int = 1) -> str:
        start = time.monotonic()
        with pytest.raises(FetchError, match="digits") as error:
            fetch("digits", [source], KNOWN_HASH)
        (reason,) = error.value.reasons
        assert "\n" not in reason
        assert capsys.readouterr().out.count("asking") == attempts
        assert time.monotonic() - start < 6  # those that wait or trickle would go on for 9 s
        return reason

    return ask


def send_content(handler, _):
    send(handler, CONTENT)


def status(code):
    return lambda handler, _: handler.send_error(code)


# Fetching one file


WELL_BEHAVED = {
    "with its length": send_content,
    "to the end of the connection": write(OK, b"\r\n", CONTENT),
    "in chunks": write(OK, CHUNKED, b"\r\n%x\r\n" % len(CONTENT), CONTENT, b"\r\n0\r\n\r\n"),
    "called an encoding": write(OK, LENGTH, b"Content-Encoding: gzip\r\n\r\n", CONTENT),
    "elsewhere": lambda *each: (send_content if each[1] else write(REDIRECT, b"/b\r\n\r\n"))(*each),
    "the third time": lambda *each: (send_content if each[1] == 2 else status(503))(*each),
}


@pytest.mark.parametrize("respond", WELL_BEHAVED.values(), ids=WELL_BEHAVED)
def test_a_good_file_arrives_as_it_was_published(respond):
    with serve(respond) as server:
        assert fetch("digits", [server.url], KNOWN_HASH) == CONTENT


def test_the_pause_between_attempts_doubles(refusal, monkeypatch):
    pauses = []
    monkeypatch.setattr("src.download.fetch.time", SimpleNamespace(sleep=pauses.append))

    with serve(status(503)) as server:
        refusal(server.url, attempts=3)

    assert pauses == [0.01, 0.02]


MISBEHAVING = {  # what it does, the value or the limit that the reason names, how often it is asked
    "has no such file": (status(404), "404 Not Found", 1),
    "asks for patience": (status(429), "429", 3),
    "promises more than it sends": (write(OK, LENGTH, b"\r\n", CONTENT[:-1]), "", 3),
    "ends a byte early": (write(OK, b"\r\n", CONTENT[:-1]), "hash", 1),
    "does not end": (write(OK + b"\r\n" + CONTENT + b"!", pause=9), f"{len(CONTENT):,}", 1),
    "does not speak HTTP": (write(b"garbage\r\n\r\n"), "", 1),
    "redirects in a circle": (write(REDIRECT, b"/file\r\n\r\n"), "", 1),
    "redirects to a file": (write(REDIRECT, b"file:///etc/passwd\r\n\r\n"), "URL", 1),
    "sends nothing": (write(b"", pause=9), "READ_TIMEOUT", 3),
    "sends chunks that make no sense": (write(OK, CHUNKED, b"\r\n1\r\nx\r\n", b"!", pause=0.1), "READ_TIMEOUT", 3),
    "trickles its headers": (write(OK, *[b"x"] * 99, pause=0.1), "DEADLINE", 1),
    "trickles its content": (write(OK, b"\r\n", *[b"x"] * 99, pause=0.1), "DEADLINE", 1),
}


@pytest.mark.parametrize(("respond", "value", "attempts"), MISBEHAVING.values(), ids=MISBEHAVING)
def test_a_server_is_left_that(refusal, monkeypatch, respond, value, attempts):
    monkeypatch.setattr("src.download.fetch.LARGEST", len(CONTENT))
    if value in ("READ_TIMEOUT", "DEADLINE"):  # whoever does answer has the time that a busy machine takes
        monkeypatch.setattr(f"src.download.fetch.{value}", 0.6)
        value = "1 s"

    with serve(respond) as server:
        assert value in refusal(server.url, attempts)


@pytest.mark.parametrize(
    ("source", "proxy", "value"),
    [
        (CLOSED, "", "127.0.0.1:9"),
        ("https://slow.invalid/digits", "", "1 s"),
        ("https://mirror.invalid/digits", CLOSED, "127.0.0.1:9"),
        ("https://mirror.invalid/digits", "socks5h://127.0.0.1:9", "socks5h"),
        ("https://mirror.invalid/digits", "", "mirror.invalid:443: not known"),
        ("http://[", "", "URL"),
        pytest.param("no such file", "", "No such file", marks=needs_posix),
    ],
)
def test_a_source_that_is_not_there_is_named_and_asked_once(refusal, monkeypatch, source, proxy, value):
    def look_up(host, *_, **__):
        if host == "slow.invalid":
            time.sleep(9)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setenv("https_proxy", proxy)
    if value == "1 s":
        monkeypatch.setattr("src.download.fetch.CONNECT_TIMEOUT", 0.6)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    assert value in refusal(source)


def test_a_certificate_counts_where_certifi_has_it(refusal, monkeypatch, tmp_path):
    with serve(send_content, self_signed_certificate(tmp_path)) as server:
        assert "certificate" in refusal(server.url)
        monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "server.pem"))
        assert fetch("digits", [server.url], KNOWN_HASH) == CONTENT


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_the_environments_proxy_is_asked_unless_no_proxy_names_the_host(monkeypatch, variable):
    with serve(send_content) as server:
        monkeypatch.setenv(variable, server.url)
        fetch("digits", ["http://mirror.invalid/digits"], KNOWN_HASH)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetch("digits", [server.url], KNOWN_HASH)

    assert server.paths == ["http://mirror.invalid/digits", "/file"]


def test_a_password_and_a_key_in_a_url_are_used_and_not_printed(capsys):
    used = []

    def look(handler, _):
        used.extend([handler.path, handler.headers["Authorization"]])
        handler.send_error(404)

    with serve(look) as server, pytest.raises(FetchError) as error:
        url = f"{server.url}?key=SECRET".replace("//", "//me:SECRET@")
        fetch("digits", [url, "HTTPS://me:SECRET@127.0.0.1:9/"], KNOWN_HASH)

    assert used == ["/file?key=SECRET", "Basic bWU6U0VDUkVU"]
    assert "SECRET" not in f"{error.value.reasons} {capsys.readouterr().out}"


# The stage


IMAGES, LABELS = np.arange(7840, dtype=np.uint8).reshape(10, 28, 28), np.arange(10, dtype=np.uint8)
ARRAYS = [IMAGES, LABELS, IMAGES[:5], LABELS[:5]]


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch) -> Path:
    """The user's mirror: a folder with `ARRAYS`, in this order, as the packed files of MNIST and Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("web")
    for name in ("mnist", "fashion_mnist"):
        resources = []
        for (file, _), array in zip(PUBLISHED[name].resources, ARRAYS, strict=True):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            packed = gzip.compress(header + array.tobytes())
            (folder / file).write_bytes(packed)
            resources.append((file, hashlib.md5(packed).hexdigest()))
        monkeypatch.setattr(PUBLISHED[name], "resources", resources)
        monkeypatch.setenv(f"{name.upper()}_MIRROR", str(folder))
    return folder


def written() -> list[np.ndarray]:
    """What ``download`` wrote: images and labels for training and for the test."""
    return [np.load(file) for files in IMAGES_FILES.values() for file in files]


def test_the_users_mirror_is_asked_first_and_again_for_a_damaged_file(in_project, mirror, monkeypatch, capsys):
    in_project.set_params(dataset="mnist", weights="random", offline_fallback=False)

    with serve(lambda handler, _: send(handler, (mirror / Path(handler.path).name).read_bytes())) as server:
        monkeypatch.setenv("MNIST_MIRROR", server.url)
        download.main()
        for file in (IMAGES_FILES["test"][1], Path(".dvc/tmp/downloads/mnist/t10k-labels-idx1-ubyte.gz")):
            file.write_bytes(b"damaged")
        download.main()

    assert all(map(np.array_equal, written(), ARRAYS))
    files = [*itertools.chain(*IMAGES_FILES.values()), *WRITERS_FILES.values()]
    assert load_manifest().sha256 == {path.as_posix(): sha256(path) for path in files}
    assert CLOSED not in capsys.readouterr().out


def test_what_was_published_as_mnist_was_comes_with_its_own_names_and_mirror(in_project, mirror):
    in_project.set_params(dataset="fashion_mnist", weights="random")

    download.main()

    manifest = load_manifest()
    assert (manifest.dataset, manifest.class_names[9]) == ("fashion_mnist", "Ankle boot")
    assert manifest.mean == pytest.approx(IMAGES.mean() / 255, abs=1e-4)
    assert manifest.std == pytest.approx(IMAGES.std() / 255, abs=1e-4)


@pytest.mark.skipif(not (FULL_MNIST / "train-images-idx3-ubyte.gz").is_file(), reason="needs it at MNIST_MIRROR")
def test_the_full_mnist_passes_through_the_download(in_project, monkeypatch):
    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", str(FULL_MNIST))

    download.main()

    loaded = load_manifest()
    assert (loaded.dataset, loaded.training_images, loaded.test_images) == ("mnist", 60_000, 10_000)
    assert load_images(loaded, "test").labels[:5].tolist() == [7, 2, 1, 0, 4]
    writers = {name: load_writers(loaded, name) for name in ("train", "test")}
    assert {name: (len(each), len(set(each))) for name, each in writers.items()} == {
        "train": (60_000, 539),
        "test": (10_000, 297),
    }
    assert not set(writers["train"]) & set(writers["test"])


def test_the_sample_is_the_same_bytes_everywhere(in_project):
    download.main()

    combined = hashlib.sha256(b"".join(array.tobytes() for array in written()))
    assert combined.hexdigest() == "1f9737060cd76992b29b54c835df0c8a96771b3cd4c8dbf9e534b7950df31a12"


def test_going_back_after_an_experiment_without_weights_takes_no_network(in_project, mirror, monkeypatch):
    (mirror / "weights.pth").write_bytes(CONTENT)
    file = WEIGHTS.with_name(f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth")
    source = SimpleNamespace(name="IMAGENET1K_V1", url=str(mirror / "weights.pth"))
    monkeypatch.setitem(initial_weights.TORCHVISION, "resnet18", source)
    monkeypatch.setitem(initial_weights.TORCHVISION_FILES, "resnet18", file)
    for module in (initial_weights, download):
        monkeypatch.setattr(module, "WEIGHTS_FILES", (file, *initial_weights.WEIGHTS_FILES))
    in_project.set_params(dataset="mnist", weights="torchvision", offline_fallback=False)
    download.main()
    before = load_manifest()
    assert before.initial_weights == "imagenet1k_v1"
    in_project.set_params(dataset="sample", weights="random")
    download.main()
    assert [file.name for file in WEIGHTS.parent.iterdir()] == ["README.txt"]

    shutil.rmtree(mirror)
    in_project.set_params(dataset="mnist", weights="torchvision")
    download.main()

    assert load_manifest() == before
    assert file.read_bytes() == CONTENT
    assert all(map(np.array_equal, written(), ARRAYS))


def test_without_a_network_the_download_warns_and_takes_the_sample(in_project, capsys):
    in_project.set_params(dataset="mnist", weights="imagenet")

    download.main()

    before, _, warning = capsys.readouterr().out.partition("!!!!")
    assert before.count("asking") == 2  # two mirrors for the first file
    for part in ("SAMPLE", "idx3-ubyte.gz", "127.0.0.1:9", "dvc repro -f download"):
        assert part in warning
    manifest = load_manifest()
    assert (manifest.dataset, manifest.validation_split) == ("sample", "class")
    assert manifest.initial_weights == "imagenet_cntk"


@pytest.mark.parametrize(
    ("params", "copy", "named"),
    [
        ({"dataset": "mnist", "offline_fallback": False}, "", ("MNIST_MIRROR", "dataset=sample")),
        ({"dataset": "mnist"}, "no/such/copy", ("no/such/copy", "MNIST_MIRROR", "offline_fallback=true")),
        ({"weights": "torchvision"}, "", ("weights=random", "weights=FILE")),
    ],
)
def test_without_a_fallback_or_a_source_that_the_user_names_the_run_ends_with_the_sources_and_ways_out(
    in_project, monkeypatch, params, copy, named
):
    monkeypatch.setenv("MNIST_MIRROR", copy)
    in_project.set_params(**params)

    with pytest.raises(UserError) as error:
        download.main()

    for part in ("127.0.0.1:9", *named):
        assert part in str(error.value)
    assert not Path("data/manifest.json").exists()


@pytest.mark.parametrize("name", ["data/images/mine.npy", "data/weights/mine.pth"])
def test_a_strangers_file_is_named_and_stays(in_project, name):
    Path(name).parent.mkdir(parents=True)
    Path(name).write_bytes(b"mine")

    with pytest.raises(UserError, match=f"^{name} [^\n]*$"):
        download.main()

    assert Path(name).read_bytes() == b"mine"


def test_what_a_kill_left_is_gone_after_the_run_and_what_a_file_manager_left_disturbs_nobody(in_project):
    IMAGES_DIR.mkdir(parents=True)
    for name in (".train_images.npy.partial", ".DS_Store"):
        (IMAGES_DIR / name).write_bytes(b"left")

    download.main()

    assert [path.name for path in IMAGES_DIR.glob(".*")] == [".DS_Store"]
