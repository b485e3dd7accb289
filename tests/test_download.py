"""The only stage that uses a network: servers that behave, misbehave or are not there, all on loopback."""

import gzip
import hashlib
import json
import shutil
import socket
import struct
import threading
import time
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import urlsplit

import certifi
import numpy as np
import pytest
import torch
from helpers.project import needs_posix, quick_params
from helpers.published import random_weights, stand_in_mnist, stand_in_weights
from helpers.server import CLOSED, NO_NETWORK, black_hole, self_signed_certificate, send, serve, write

from src.download import initial_weights
from src.download import stage as download
from src.download.fetch import CONNECT_TIMEOUT, FetchError, fetch, resolve
from src.download.sample import sample_files
from src.mnist.dataset import load_images, load_manifest
from src.pipeline.files import sha256
from src.pipeline.process import UserError
from src.train.stage import initial_model

CONTENT = gzip.compress(bytes(range(256)) * 1000, mtime=0)
KNOWN_HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
RAW = Path("data/mnist/MNIST/raw")
WEIGHTS = Path("data/weights/resnet18-f37072fd.pth")
PUBLISHED = {urlsplit(url).hostname for url in [*download.MNIST.mirrors, initial_weights.IMAGENET_URL]}

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CONTENT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
REDIRECT = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Neither the user's variables nor the Internet: what is published is at a port where nobody listens."""
    for name in (*NO_NETWORK, "MNIST_MIRROR", "RESNET18_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.MNIST, "mirrors", [f"{CLOSED}one/", f"{CLOSED}two/"])
    monkeypatch.setattr(initial_weights, "IMAGENET_URL", CLOSED + WEIGHTS.name)
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)


@pytest.fixture
def refusal(tries, capsys):
    """Fetch from one source that must fail; return why, in one line, and how often it was asked."""

    def ask(source: str) -> tuple[str, int]:
        tries("mirror that misbehaves", quick=1, full=1)
        with pytest.raises(FetchError, match="digits") as error:
            fetch("digits", [source], len(CONTENT), KNOWN_HASH)
        (reason,) = error.value.reasons
        assert "\n" not in reason
        return reason.removeprefix(f"{source}: "), capsys.readouterr().out.count("asking")

    return ask


def send_content(handler, _):
    send(handler, CONTENT)


def status(code):
    return lambda handler, _: handler.send_error(code)


def reset(handler, _):
    handler.wfile.write(OK + LENGTH + b"\r\n" + CONTENT[:100])
    time.sleep(0.1)  # so that the client has read this
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()  # with no lingering: a reset


def manifest():
    return json.loads(Path("data/manifest.json").read_text())


# Fetching one file


WELL_BEHAVED = {
    "with its length": send_content,
    "to the end of the connection": write(OK, b"\r\n", CONTENT),
    "in chunks": write(OK, CHUNKED, b"\r\n%x\r\n" % len(CONTENT), CONTENT, b"\r\n0\r\n\r\n"),
    "called an encoding": write(OK, LENGTH, b"Content-Encoding: gzip\r\n\r\n", CONTENT),
    "elsewhere": lambda *each: (send_content if each[1] else write(REDIRECT, b"/b\r\n\r\n"))(*each),
}


@pytest.mark.parametrize("respond", WELL_BEHAVED.values(), ids=WELL_BEHAVED)
def test_a_good_file_arrives_as_it_was_published(respond):
    with serve(respond) as server:
        assert fetch("digits", [server.url], len(CONTENT), KNOWN_HASH) == CONTENT


def test_sources_are_asked_in_their_order_until_one_has_the_file(tmp_path):
    (tmp_path / "copy").write_bytes(CONTENT)

    with serve(status(404)) as empty, serve(send_content) as full:
        sources = [str(tmp_path / "absent"), empty.url, str(tmp_path / "copy"), full.url]
        assert fetch("digits", sources, len(CONTENT), KNOWN_HASH) == CONTENT

    assert (len(empty.paths), len(full.paths)) == (1, 0)


def test_a_server_that_fails_twice_is_asked_a_third_time_and_each_time_is_printed_before_it_answers(capsys):
    printed = []

    def fail_twice(handler, number):
        printed.append(capsys.readouterr().out)
        (send_content if number == 2 else status(503))(handler, number)

    with serve(fail_twice) as server:
        assert fetch("digits", [server.url], len(CONTENT), KNOWN_HASH) == CONTENT

    assert [server.url in output for output in printed] == [True] * 3
    assert ["503" in output for output in printed] == [False, True, True]


MISBEHAVING = {  # what it does, the value or the limit that the reason names, how often it is asked
    "has no such file": (status(404), "404 Not Found", 1),
    "is out of order": (status(500), "500 Internal Server Error", 3),
    "has waited for too long": (status(408), "408", 3),
    "asks for patience": (status(429), "429", 3),
    "closes without an answer": (lambda *_: None, "", 3),
    "promises more than it sends": (write(OK, LENGTH, b"\r\n", CONTENT[:-1]), "", 3),
    "ends within a chunk": (write(OK, CHUNKED, b"\r\nff\r\nabc"), "", 3),
    "resets the connection": (reset, "", 3),
    "ends a byte early": (write(OK, b"\r\n", CONTENT[:-1]), f"{len(CONTENT) - 1:,}", 3),
    "has another file": (write(OK, LENGTH, b"\r\n", bytes(len(CONTENT))), "hash", 1),
    "sends for ever": (write(OK, b"\r\n", *[CONTENT] * 99999), f"{len(CONTENT):,}", 1),
    "does not speak HTTP": (write(b"garbage\r\n\r\n"), "", 1),
    "redirects in a circle": (write(REDIRECT, b"/file\r\n\r\n"), "", 1),
    "redirects to nonsense": (write(REDIRECT, b"http://[/\r\n\r\n"), "URL", 1),
    "redirects to a file": (write(REDIRECT, b"file:///etc/passwd\r\n\r\n"), "URL", 1),
    "redirects to nobody": (write(REDIRECT, CLOSED.encode(), b"\r\n\r\n"), "127.0.0.1:9", 1),
    "sends nothing": (write(b"", pause=9), "READ_TIMEOUT", 3),
    "sends no chunk after its size": (write(OK, CHUNKED, b"\r\n", *[b"0"] * 99, pause=0.1), "READ_TIMEOUT", 3),
    "sends chunks that make no sense": (write(OK, CHUNKED, b"\r\n1\r\nx\r\n", b"!", pause=0.1), "READ_TIMEOUT", 3),
    "trickles its content": (write(OK, b"\r\n", *[b"x"] * 99, pause=0.1), "DEADLINE", 1),
    "trickles its headers": (write(OK, *[b"x"] * 99, pause=0.1), "DEADLINE", 1),
    "trickles the sizes of chunks": (write(OK, CHUNKED, b"\r\n", *[b"1\r\nx\r\n"] * 99, pause=0.1), "DEADLINE", 1),
    "redirects slowly": (write(REDIRECT, b"/file\r\n\r\n", pause=0.1), "DEADLINE", 1),
}


@pytest.mark.parametrize(("respond", "value", "attempts"), MISBEHAVING.values(), ids=MISBEHAVING)
def test_a_server_is_left_that(refusal, monkeypatch, respond, value, attempts):
    if value in ("READ_TIMEOUT", "DEADLINE"):  # whoever does answer has the time that a busy machine takes
        monkeypatch.setattr(f"src.download.fetch.{value}", 0.6)
        value = "1 s"
    start = time.monotonic()

    with serve(respond) as server:
        reason, asked = refusal(server.url)

    assert value in reason
    assert asked == attempts
    assert time.monotonic() - start < 6  # those that trickle would go on for 10 s


# What can't be reached is named, and asked once


@pytest.mark.parametrize(
    ("source", "environment", "value"),
    [
        (CLOSED, {}, "127.0.0.1:9"),
        ("https://mirror.invalid/digits", {"https_proxy": CLOSED}, "127.0.0.1:9"),
        ("https://mirror.invalid/digits", {"ALL_PROXY": CLOSED}, "127.0.0.1:9"),
        ("https://mirror.invalid/digits", {"https_proxy": "socks5h://me:SECRET@127.0.0.1:9"}, "socks5h"),
        ("http://", {}, "URL"),
        ("http://[", {}, "URL"),
        ("http://a:b/", {}, "URL"),
        ("https://mirror..invalid/", {}, "URL"),
        pytest.param("no such file", {}, "No such file", marks=needs_posix),
        pytest.param(".", {}, "Is a directory", marks=needs_posix),
    ],
)
def test_a_source_that_is_not_there_is_named(refusal, monkeypatch, source, environment, value):
    for name, proxy in environment.items():
        monkeypatch.setenv(name, proxy)

    reason, asked = refusal(source)

    assert value in reason
    assert "SECRET" not in reason
    assert asked == 1


def address_of(url):
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", urlsplit(url).port)


@pytest.mark.parametrize("silent", ["the address", "all of forty addresses", "the resolver"])
def test_what_never_answers_is_not_waited_for(refusal, monkeypatch, silent):
    monkeypatch.setattr("src.download.fetch.CONNECT_TIMEOUT", 0.6)
    woken = threading.Event()
    start = time.monotonic()

    with black_hole() as url:
        if silent != "the address":
            found = None if silent == "the resolver" else [address_of(url)] * 40
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found or woken.wait(20))
        reason, asked = refusal(url if silent == "the address" else "http://mirror.invalid/digits")

    assert time.monotonic() - start < 6
    woken.set()
    assert "1 s" in reason
    assert asked == 1


def test_an_unknown_host_is_named(refusal, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(socket.EAI_NONAME, "not known")))

    assert refusal("https://mirror.invalid/digits") == ("can't be reached: mirror.invalid:443: not known", 1)


@pytest.mark.parametrize("swallowed", [1, 3])
def test_a_host_is_reached_by_the_one_of_its_addresses_that_answers(monkeypatch, swallowed):
    with black_hole() as hole, serve(send_content) as server:
        found = [address_of(hole)] * swallowed + [address_of(server.url)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        assert fetch("digits", ["http://mirror.invalid/digits"], len(CONTENT), KNOWN_HASH) == CONTENT


def test_without_a_route_the_fallback_comes_within_thirty_seconds():
    assert CONNECT_TIMEOUT * (len(PUBLISHED) + 2) <= 30  # and the user's two variables


def test_a_certificate_counts_where_certifi_has_it(refusal, monkeypatch, tmp_path):
    with serve(send_content, self_signed_certificate(tmp_path)) as server:
        reason, asked = refusal(server.url)
        monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "server.pem"))
        content = fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert "certificate" in reason
    assert asked == 1
    assert content == CONTENT


# Proxies and secrets


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_the_environments_proxy_is_asked_unless_no_proxy_names_the_host(monkeypatch, variable):
    with serve(send_content) as server:
        monkeypatch.setenv(variable, server.address)
        fetch("digits", ["http://mirror.invalid/digits"], len(CONTENT), KNOWN_HASH)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert server.paths == ["http://mirror.invalid/digits", "/file"]


def test_a_proxy_that_refuses_is_named_with_its_answer(refusal, monkeypatch):
    with serve(status(403)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)
        reason, asked = refusal("https://mirror.invalid/digits")

    assert "proxy" in reason
    assert "403 Forbidden" in reason
    assert (asked, proxy.paths) == (1, ["mirror.invalid:443"])


def test_a_password_and_a_key_in_a_url_are_used_and_not_printed(capsys):
    used = []

    def look(handler, _):
        used.extend([handler.path, handler.headers["Authorization"]])
        handler.send_error(404)

    with serve(look) as server, pytest.raises(FetchError) as error:
        url = f"{server.url}?key=SECRET".replace("//", "//me:SECRET@")
        fetch("digits", [url, "HTTPS://me:SECRET@127.0.0.1:9/", "s3://me:SECRET@bucket/"], len(CONTENT), KNOWN_HASH)

    assert used == ["/file?key=SECRET", "Basic bWU6U0VDUkVU"]
    assert "SECRET" not in f"{error.value.reasons} {capsys.readouterr().out}"


def test_the_home_of_a_user_who_is_unknown_is_named():
    with pytest.raises(UserError, match="~nobody of this name/weights"):
        resolve("~nobody of this name/weights")


# MNIST


@pytest.fixture
def mirror(tmp_path_factory, monkeypatch):
    """The user's mirror of MNIST: a folder, and what its files hold."""
    folder = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(folder, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(folder))
    return folder, published


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("kind", ["url", "folder", "folder from the project that an experiment comes from"])
def test_the_users_mirror_is_asked_first_and_its_files_are_unpacked(in_project, mirror, monkeypatch, capsys, kind):
    folder, published = mirror
    in_project.set_params(dataset="mnist", offline_fallback=False)

    with serve(lambda handler, _: send(handler, (folder / Path(handler.path).name).read_bytes())) as server:
        if kind == "url":
            monkeypatch.setenv("MNIST_MIRROR", server.address)
        elif kind != "folder":
            monkeypatch.setenv("MNIST_MIRROR", folder.name)
            monkeypatch.setenv("DVC_ROOT", str(folder.parent))
        download.main()

    assert files_in(RAW) == published
    assert manifest()["sha256"] == {f"{RAW}/{name}": sha256(RAW / name) for name in published}
    assert CLOSED not in capsys.readouterr().out


def test_a_damaged_file_alone_is_fetched_again_first_from_what_this_clone_keeps(in_project, mirror, capsys):
    folder, published = mirror
    name = "t10k-labels-idx1-ubyte"
    kept = Path(f".dvc/tmp/downloads/{name}.gz")
    download.download_mnist()
    whole = kept.read_bytes()
    capsys.readouterr()

    asked = []
    for damaged in ([RAW / name], [RAW / name, kept]):
        for file in damaged:
            file.write_bytes(b"damaged")
        download.download_mnist()
        asked.append([line.split()[2] for line in capsys.readouterr().out.splitlines() if "asking" in line])
        assert files_in(RAW) == published
        assert kept.read_bytes() == whole

    assert asked == [[str(kept)], [str(kept), str(folder / kept.name)]]


def test_the_full_mnist_passes_through_the_download(in_project, full_mnist, monkeypatch):
    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", str(full_mnist))

    download.main()

    loaded = load_manifest()
    assert (loaded.dataset, loaded.training_images, loaded.test_images) == ("mnist", 60_000, 10_000)
    assert load_images(loaded, "test").labels[:5].tolist() == [7, 2, 1, 0, 4]
    for packed in full_mnist.glob("*-ubyte.gz"):
        assert (RAW / packed.stem).read_bytes() == gzip.decompress(packed.read_bytes())


def test_the_sample_is_the_same_bytes_everywhere():
    files = sample_files()

    combined = hashlib.sha256(b"".join(files[name] for name in sorted(files)))

    assert combined.hexdigest() == "f6ae350a8a71921fe18aa4e9a3b8a0e0dff3c9159886857a9ffccacb5e618698"


def test_each_digit_of_the_sample_is_in_one_of_its_two_sets(in_project, digits):
    download.main()

    training, test = load_images(load_manifest(), "train"), load_images(load_manifest(), "test")
    assert np.bincount(training.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    found = [image.tobytes() for image in [*training.images, *test.images]]
    assert sorted(found) == sorted(image.tobytes() for image in digits[0])


# The initial weights


def test_weights_with_the_right_hash_are_what_training_starts_from(in_project, monkeypatch):
    published = random_weights()
    stand_in_weights(published, monkeypatch)
    in_project.set_params(weights="imagenet", offline_fallback=False)
    with serve(lambda handler, _: send(handler, published)) as server:
        monkeypatch.setenv("RESNET18_WEIGHTS", server.url)
        download.main()

    model = initial_model(quick_params(weights="imagenet", conv1_init="sum"), load_manifest())

    assert (manifest()["initial_weights"], manifest()["weights_file"]) == ("imagenet1k_v1", WEIGHTS.as_posix())
    assert manifest()["sha256"][WEIGHTS.as_posix()] == hashlib.sha256(published).hexdigest()
    state = torch.load(WEIGHTS, weights_only=True)
    assert torch.equal(model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(model.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))


def test_going_back_after_an_experiment_without_weights_takes_no_network(in_project, mirror, monkeypatch):
    folder, published = mirror
    (folder / "weights.pth").write_bytes(CONTENT)
    stand_in_weights(CONTENT, monkeypatch)
    monkeypatch.setenv("RESNET18_WEIGHTS", str(folder / "weights.pth"))
    in_project.set_params(dataset="mnist", weights="imagenet", offline_fallback=False)
    download.main()
    before = manifest()
    in_project.set_params(dataset="sample", weights="random")
    download.main()
    assert list(files_in(WEIGHTS.parent)) == ["README.txt"]
    assert (manifest()["initial_weights"], manifest()["weights_file"]) == ("random", None)

    shutil.rmtree(folder)
    in_project.set_params(dataset="mnist", weights="imagenet")
    download.main()

    assert manifest() == before
    assert WEIGHTS.read_bytes() == CONTENT
    assert files_in(RAW) == published


# Without a network


def test_without_a_network_the_download_warns_and_takes_the_sample_until_a_mirror_is_there(
    in_project, monkeypatch, tmp_path_factory, capsys
):
    in_project.set_params(dataset="mnist", weights="imagenet")

    download.main()

    before, _, warning = capsys.readouterr().out.partition("!!!!")
    assert before.count("asking") == 3  # two mirrors for the first file, one source of the weights
    for part in (
        "SAMPLE",
        "RANDOM",
        "train-images-idx3-ubyte.gz",
        WEIGHTS.name,
        "127.0.0.1:9",
        "dvc repro -f download",
    ):
        assert part in warning
    assert (manifest()["dataset"], manifest()["initial_weights"]) == ("sample", "random")

    folder = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(folder, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(folder))
    download.main()

    assert manifest()["dataset"] == "mnist"
    assert files_in(RAW) == published


@pytest.mark.parametrize(
    ("params", "variable", "override"),
    [
        ({"dataset": "mnist"}, "MNIST_MIRROR", "dataset=sample"),
        ({"weights": "imagenet"}, "RESNET18_WEIGHTS", "weights=random"),
    ],
)
def test_without_a_network_and_a_fallback_the_download_names_sources_and_ways_out(
    in_project, monkeypatch, params, variable, override
):
    in_project.set_params(**params, offline_fallback=False)
    monkeypatch.setenv(variable, "no/such/copy")

    with pytest.raises(UserError) as error:
        download.main()

    message = str(error.value)
    for part in ("no/such/copy", CLOSED, "127.0.0.1:9", variable, override, "offline_fallback=true"):
        assert part in message
    assert not WEIGHTS.exists()
    assert not Path("data/manifest.json").exists()


# Files that are not the stage's own


def test_a_strangers_file_is_named_and_stays(in_project):
    for name in (
        "data/mnist/notes.txt",
        "data/mnist/MNIST/raw/train-images-idx3-ubyte.gz",
        "data/mnist/MNIST/processed/training.pt",
        "data/weights/mine.pth",
    ):
        stranger = Path(name)
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"mine")

        with pytest.raises(UserError, match=f"^{name} [^\n]*$"):
            download.main()

        assert stranger.read_bytes() == b"mine"
        stranger.unlink()


@pytest.mark.slow
def test_dvc_repro_leaves_a_strangers_file_where_it_is(trained, fails):
    stranger = trained.path / "data/mnist/notes.txt"
    stranger.write_bytes(b"mine")

    done = trained.run("dvc", "repro", ok=False)

    fails(done, "data/mnist/notes.txt")
    assert stranger.read_bytes() == b"mine"


@pytest.mark.slow
def test_what_a_system_leaves_in_a_folder_disturbs_nobody(trained):
    for name in (".DS_Store", "._train-images-idx3-ubyte", "Thumbs.db", "desktop.ini"):
        (trained.path / "data/mnist" / name).write_bytes(b"the system's")

    trained.run("python", "-m", "src.download")

    assert trained.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


def test_what_a_kill_left_is_no_stranger_and_is_gone_after_the_run(in_project):
    leftovers = [file.with_name(f".{file.name}.partial") for file in (RAW / "train-images-idx3-ubyte", WEIGHTS)]
    for leftover in leftovers:
        leftover.parent.mkdir(parents=True)
        leftover.write_bytes(b"half")

    download.main()

    assert not any(leftover.exists() for leftover in leftovers)
