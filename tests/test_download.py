"""The only stage that uses a network: servers that behave, misbehave or are not there, all on loopback."""

import gzip
import hashlib
import json
import shutil
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from helpers.project import needs_posix, quick_params
from helpers.published import random_weights, stand_in_mnist, stand_in_weights
from helpers.server import CLOSED, NO_NETWORK, black_hole, self_signed_certificate, send, serve

from src.download import __main__ as download
from src.download import weights
from src.download.fetch import FetchError, fetch
from src.download.reach import CONNECT_TIMEOUT, REACH_TIMEOUT, reach
from src.download.sample import sample_files
from src.download.sources import resolve
from src.mnist.dataset import load_test_images, load_training_images
from src.mnist.dataset import load_manifest
from src.pipeline.process import UserError
from src.pipeline.files import sha256
from src.train.stage import initial_model

CONTENT = bytes(range(256)) * 1000
KNOWN_HASH = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
RAW = Path("data/mnist/MNIST/raw")
WEIGHTS = Path("data/weights/resnet18-f37072fd.pth")


@pytest.fixture(autouse=True)
def no_variables_of_the_user(monkeypatch):
    for name in (*NO_NETWORK, "MNIST_MIRROR", "RESNET18_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("src.download.fetch.BACKOFF", 0.01)


@pytest.fixture
def impatient(monkeypatch):
    """Wait a second for what will never come. Whoever does answer has all the time that a busy machine needs."""
    monkeypatch.setattr("src.download.reach.CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr("src.download.reach.REACH_TIMEOUT", 1.0)
    monkeypatch.setattr("src.download.fetch.DEADLINE", 1.0)


@pytest.fixture
def nothing_published(monkeypatch):
    """Neither MNIST's mirrors nor torchvision's weights can be reached."""
    monkeypatch.setattr(download.MNIST, "mirrors", [CLOSED])
    monkeypatch.setattr(weights, "IMAGENET_URL", CLOSED + WEIGHTS.name)


@pytest.fixture
def refusal(tries):
    """Fetch from one source that must fail; return the reason without the source."""

    def reason_of(source: str) -> str:
        tries("mirror that misbehaves", quick=1, full=1)
        with pytest.raises(FetchError, match="no source has digits") as error:
            fetch("digits", [source], len(CONTENT), KNOWN_HASH)
        (reason,) = error.value.reasons
        assert "\n" not in reason
        return reason.removeprefix(f"{source}: ")

    return reason_of


def send_content(handler: BaseHTTPRequestHandler, _: int) -> None:
    send(handler, CONTENT)


def manifest() -> dict:
    return json.loads(Path("data/manifest.json").read_text())


# Fetching one file


def test_a_good_file_arrives_whole():
    with serve(send_content) as server:
        content = fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert content == CONTENT


def test_a_file_on_this_machine_is_read(tmp_path):
    (tmp_path / "copy").write_bytes(CONTENT)

    content = fetch("digits", [str(tmp_path / "copy")], len(CONTENT), KNOWN_HASH)

    assert content == CONTENT


def test_the_next_source_is_asked_where_one_has_nothing(tmp_path):
    absent = str(tmp_path / "no such file")

    with serve(lambda handler, _: handler.send_error(404)) as empty, serve(send_content) as full:
        content = fetch("digits", [absent, empty.url, full.url], len(CONTENT), KNOWN_HASH)

    assert content == CONTENT
    assert len(empty.paths) == 1  # what is not there now will not be there in a second


def test_the_source_that_is_asked_is_printed_before_it_answers(capsys):
    printed = []

    def look(handler, _):
        printed.append(capsys.readouterr().out)
        send(handler, CONTENT)

    with serve(look) as server:
        fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert f"download: asking {server.url}" in printed[0]


def test_a_server_that_fails_twice_is_asked_a_third_time(capsys):
    with serve(lambda handler, number: send(handler, CONTENT) if number == 2 else handler.send_error(503)) as server:
        content = fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert content == CONTENT
    assert len(server.paths) == 3
    assert "download: it answers 503 Service Unavailable" in capsys.readouterr().out


@pytest.mark.parametrize("status", [408, 429])
def test_a_server_that_asks_for_patience_is_asked_again(status):
    with serve(lambda handler, number: send(handler, CONTENT) if number else handler.send_error(status)) as server:
        content = fetch("digits", [server.url], len(CONTENT), KNOWN_HASH)

    assert content == CONTENT
    assert len(server.paths) == 2


def test_a_password_or_a_key_in_a_url_is_used_and_not_printed(capsys):
    with serve(lambda handler, _: handler.send_error(404)) as server:
        url = f"{server.url}?signature=SECRET".replace("//", "//user:SECRET@")
        with pytest.raises(FetchError) as error:
            fetch("digits", [url], len(CONTENT), KNOWN_HASH)

    assert server.paths == ["/file?signature=SECRET"]
    assert error.value.reasons == [f"{server.url}: answers 404 Not Found"]
    assert "SECRET" not in capsys.readouterr().out


@pytest.mark.parametrize("url", ["HTTPS://user:SECRET@127.0.0.1:1/file?key=SECRET", "s3://key:SECRET@bucket/file"])
def test_a_url_of_any_kind_is_printed_without_its_secrets(url, capsys):
    with pytest.raises(FetchError) as error:
        fetch("digits", [url], len(CONTENT), KNOWN_HASH)

    assert "SECRET" not in f"{error.value.reasons} {capsys.readouterr().out}"
    assert "No such file" not in error.value.reasons[0]


def test_a_server_that_always_fails_is_given_up(refusal):
    with serve(lambda handler, _: handler.send_error(500)) as server:
        reason = refusal(server.url)

    assert reason == "answers 500 Internal Server Error"
    assert len(server.paths) == 3


def test_a_wrong_file_is_refused_and_not_asked_for_again(refusal):
    with serve(lambda handler, _: send(handler, bytes(len(CONTENT)))) as server:
        reason = refusal(server.url)

    assert reason == "sends a file with the wrong hash"
    assert len(server.paths) == 1


def test_a_file_cut_short_is_refused(refusal):
    with serve(lambda handler, _: send(handler, CONTENT[:-1])) as server:
        reason = refusal(server.url)

    assert reason == "ends after 255,999 of 256,000 bytes"
    assert len(server.paths) == 3


def test_a_connection_that_ends_early_is_tried_again(refusal):
    def promise_more(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])

    with serve(promise_more) as server:
        reason = refusal(server.url)

    assert reason == "breaks off: IncompleteRead(1000 bytes read, 255000 more expected)"
    assert len(server.paths) == 3


def test_a_server_that_closes_without_an_answer_is_tried_again(refusal):
    with serve(lambda *_: None) as server:
        reason = refusal(server.url)

    assert reason == "can't be reached: Remote end closed connection without response"
    assert len(server.paths) == 3


@needs_posix
def test_a_server_that_resets_the_connection_is_tried_again(refusal):
    def reset(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        time.sleep(0.1)  # so that the client has read what came before
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()  # with no lingering: a reset

    with serve(reset) as server:
        reason = refusal(server.url)

    assert reason == "breaks off: Connection reset by peer"
    assert len(server.paths) == 3


def test_a_server_that_hangs_is_left_after_the_time_out(refusal, monkeypatch):
    monkeypatch.setattr("src.download.fetch.READ_TIMEOUT", 0.5)
    start = time.monotonic()

    with serve(lambda *_: time.sleep(30)) as server:
        reason = refusal(server.url)

    assert reason.startswith("sends no data for ")
    assert time.monotonic() - start < 15


def test_a_server_that_trickles_is_left_at_the_deadline(refusal, impatient):
    def trickle(handler, _):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    start = time.monotonic()

    with serve(trickle) as server:
        reason = refusal(server.url)

    assert reason == "is not done after 1 s"
    assert time.monotonic() - start < 10  # the server would go on for 20 s
    assert len(server.paths) == 1


def test_a_server_that_sends_forever_is_cut_off(refusal):
    def forever(handler, _):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(CONTENT)

    with serve(forever) as server:
        reason = refusal(server.url)

    assert reason == "sends more than the 256,000 bytes of digits"


def test_a_server_that_redirects_in_a_circle_is_left(refusal):
    def circle(handler, _):
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.end_headers()

    with serve(circle) as server:
        reason = refusal(server.url)

    assert reason == "redirects in a circle"


def test_a_server_that_speaks_no_http_is_one_line(refusal):
    with serve(lambda handler, _: handler.wfile.write(b"garbage\r\n\r\n")) as server:
        reason = refusal(server.url)

    assert reason == "can't be reached: garbage"


def test_a_server_that_redirects_to_nonsense_is_left(refusal):
    def astray(handler, _):
        handler.send_response(302)
        handler.send_header("Location", "http://[/")
        handler.end_headers()

    with serve(astray) as server:
        reason = refusal(server.url)

    assert reason == "is no valid URL"


# A source that can't be reached is named with the innermost cause, and asked once


@needs_posix
def test_a_closed_port_is_named(refusal, capsys):
    reason = refusal(CLOSED)

    assert reason == "can't be reached: Connection refused"
    assert capsys.readouterr().out.count("asking") == 1


def test_an_unknown_host_is_named(refusal, monkeypatch, capsys):
    def no_such_host(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)

    reason = refusal("https://mirror.invalid/digits")

    assert reason == "can't be reached: Name or service not known"
    assert capsys.readouterr().out.count("asking") == 1


def test_an_address_that_never_answers_is_named(refusal, impatient, capsys):
    with black_hole() as url:
        reason = refusal(url)

    assert reason.startswith("can't be reached: no answer within ")
    assert capsys.readouterr().out.count("asking") == 1


def test_a_resolver_that_hangs_is_not_waited_for(refusal, impatient, monkeypatch, capsys):
    woken = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [woken.wait(20)][:0])
    start = time.monotonic()

    reason = refusal("https://mirror.invalid/digits")

    woken.set()
    assert reason == "can't be reached: no answer within 1 s"
    assert capsys.readouterr().out.count("asking") == 1
    assert time.monotonic() - start < 10


def test_a_host_whose_addresses_all_swallow_packets_is_not_waited_for(refusal, impatient, monkeypatch):
    with black_hole() as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address] * 40)
        start = time.monotonic()

        reason = refusal(f"http://mirror.invalid:{port}/digits")

    assert reason == "can't be reached: no answer within 1 s"
    assert time.monotonic() - start < 10  # one after another they would take 20 s


@pytest.mark.parametrize("swallowed", [1, 3])
def test_a_host_is_reached_by_ipv4_where_the_network_swallows_ipv6(monkeypatch, swallowed):
    tried = []

    def connect(address, timeout):
        tried.append(address[0])
        if ":" in address[0]:
            raise TimeoutError
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    both = [(socket.AF_INET6, ("2001:db8::1", 80, 0, 0))] * swallowed + [(socket.AF_INET, ("192.0.2.1", 80))]
    found = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for family, address in both]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    reach("http://mirror.invalid/digits")

    assert tried == ["2001:db8::1", "192.0.2.1"]
    assert len(tried) * CONNECT_TIMEOUT <= REACH_TIMEOUT


def test_without_a_route_the_fallback_comes_within_thirty_seconds():
    hosts = {urlsplit(url).hostname for url in [*download.MNIST.mirrors, weights.IMAGENET_URL]}

    assert REACH_TIMEOUT * (len(hosts) + 2) <= 30  # and the user's two variables


@needs_posix
def test_a_proxy_that_is_not_there_is_named(refusal, monkeypatch, capsys):
    monkeypatch.setenv("https_proxy", CLOSED)

    reason = refusal("https://mirror.invalid/digits")

    assert reason == "can't be reached: the proxy: Connection refused"
    assert capsys.readouterr().out.count("asking") == 1


def test_a_proxy_that_refuses_is_named_with_its_answer(refusal, monkeypatch):
    with serve(lambda handler, _: handler.send_error(403)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)

        reason = refusal("https://mirror.invalid/digits")

    assert reason == "can't be reached: the proxy: Tunnel connection failed: 403 Forbidden"
    assert len(proxy.paths) == 1


def test_a_certificate_that_nobody_signed_is_named(refusal, tmp_path, capsys):
    certificate = self_signed_certificate(tmp_path)

    with serve(send_content, certificate) as server:
        reason = refusal(server.url)

    assert "certificate verify failed" in reason
    assert capsys.readouterr().out.count("asking") == 1


def test_a_proxy_that_speaks_socks_is_named_with_what_is_missing(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "socks", None)  # PySocks is not there
    with serve(lambda *_: None) as server:
        monkeypatch.setenv("https_proxy", server.address.replace("http:", "socks5h:"))

        reason = refusal("https://mirror.invalid/digits")

    assert reason == "can't be reached: the proxy speaks SOCKS, which needs `pip install PySocks`"


def test_the_home_of_a_user_who_is_unknown_is_named():
    with pytest.raises(UserError, match="~nobody of this name/weights: there is no such user"):
        resolve("~nobody of this name/weights")


@pytest.mark.parametrize("url", ["http://", "http://[", "http://a:b/", "https://mirror..invalid/", "https:// /"])
def test_a_url_that_is_none_is_named_and_asked_once(refusal, url, capsys):
    reason = refusal(url)

    assert reason == "is no valid URL"
    assert capsys.readouterr().out.count("asking") == 1


@needs_posix
@pytest.mark.parametrize(("name", "cause"), [("nothing", "No such file or directory"), ("", "Is a directory")])
def test_a_path_that_is_no_file_is_named(refusal, tmp_path, name, cause):
    reason = refusal(str(tmp_path / name))

    assert reason == f"can't be read: {cause}"


# MNIST


@pytest.mark.parametrize("as_url", [True, False])
def test_a_mirror_gives_the_published_files_unpacked(in_project, tmp_path_factory, monkeypatch, as_url):
    mirror = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(mirror, monkeypatch)
    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setattr(download.MNIST, "mirrors", [])

    with serve(lambda handler, _: send(handler, (mirror / Path(handler.path).name).read_bytes())) as server:
        monkeypatch.setenv("MNIST_MIRROR", server.address if as_url else str(mirror))
        download.main()

    assert {file.name: file.read_bytes() for file in RAW.iterdir()} == published
    assert manifest()["sha256"] == {f"{RAW}/{name}": sha256(RAW / name) for name in published}


def test_the_users_mirror_is_asked_before_the_others(in_project, tmp_path_factory, monkeypatch, capsys):
    mirror = tmp_path_factory.mktemp("web") / "mnist"
    stand_in_mnist(mirror, monkeypatch)
    monkeypatch.setattr(download.MNIST, "mirrors", [CLOSED])
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))

    download.download_mnist()

    output = capsys.readouterr().out
    assert f"asking {mirror}/train-images-idx3-ubyte.gz" in output
    assert CLOSED not in output


def test_a_relative_path_of_a_mirror_starts_at_the_project_that_an_experiment_comes_from(
    in_project, tmp_path_factory, monkeypatch
):
    mirror = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(mirror, monkeypatch)
    monkeypatch.setenv("DVC_ROOT", str(mirror.parent))
    monkeypatch.setenv("MNIST_MIRROR", "mnist")

    download.download_mnist()

    assert {file.name for file in RAW.iterdir()} == set(published)


def test_a_whole_file_is_not_fetched_again_and_a_damaged_one_is(in_project, tmp_path_factory, monkeypatch, capsys):
    mirror = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(mirror, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))
    download.download_mnist()
    capsys.readouterr()

    (RAW / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    download.download_mnist()

    assert (RAW / "t10k-labels-idx1-ubyte").read_bytes() == published["t10k-labels-idx1-ubyte"]
    assert capsys.readouterr().out == "download: asking .dvc/tmp/downloads/t10k-labels-idx1-ubyte.gz\n"


def test_the_full_mnist_passes_through_the_download(in_project, full_mnist, monkeypatch):
    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", str(full_mnist))
    monkeypatch.setattr(download.MNIST, "mirrors", [])

    download.main()

    loaded = load_manifest()
    assert (loaded.dataset, loaded.training_images, loaded.test_images) == ("mnist", 60_000, 10_000)
    assert load_training_images(loaded).labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert load_test_images(loaded).labels[:5].tolist() == [7, 2, 1, 0, 4]
    for packed in full_mnist.glob("*-ubyte.gz"):
        assert (RAW / packed.stem).read_bytes() == gzip.decompress(packed.read_bytes())


def test_the_sample_is_the_same_bytes_everywhere():
    files = sample_files()

    combined = hashlib.sha256(b"".join(files[name] for name in sorted(files)))

    assert combined.hexdigest() == "f6ae350a8a71921fe18aa4e9a3b8a0e0dff3c9159886857a9ffccacb5e618698"


def test_each_digit_of_the_sample_is_in_one_of_its_two_sets(in_project, digits):
    download.main()

    training, test = load_training_images(load_manifest()), load_test_images(load_manifest())
    assert training.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    found = [image.tobytes() for image in [*training.images.numpy(), *test.images.numpy()]]
    assert sorted(found) == sorted(image.tobytes() for image in digits[0])


# The initial weights


def test_weights_with_the_right_hash_are_what_training_starts_from(in_project, nothing_published, monkeypatch):
    published = random_weights()
    stand_in_weights(published, monkeypatch)
    in_project.set_params(weights="imagenet", offline_fallback=False)
    with serve(lambda handler, _: send(handler, published)) as server:
        monkeypatch.setenv("RESNET18_WEIGHTS", server.url)
        download.main()

    model = initial_model(quick_params(weights="imagenet", conv1_init="sum"), load_manifest())

    assert manifest()["initial_weights"] == "imagenet1k_v1"
    assert manifest()["weights_file"] == WEIGHTS.as_posix()
    assert manifest()["sha256"][WEIGHTS.as_posix()] == hashlib.sha256(published).hexdigest()
    state = torch.load(WEIGHTS, weights_only=True)
    assert torch.equal(model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(model.conv1.weight, state["conv1.weight"].sum(1, keepdim=True))


def test_weights_with_a_wrong_hash_are_refused(in_project, nothing_published, monkeypatch):
    stand_in_weights(CONTENT, monkeypatch)
    in_project.set_params(weights="imagenet", offline_fallback=False)

    with serve(lambda handler, _: send(handler, CONTENT[:-1] + b"!")) as server:
        monkeypatch.setenv("RESNET18_WEIGHTS", server.url)
        with pytest.raises(SystemExit) as exit_:
            download.main()

    message = str(exit_.value)
    assert f"{server.url}: sends a file with the wrong hash" in message
    for way_out in ("RESNET18_WEIGHTS", "weights=random", "offline_fallback=true"):
        assert way_out in message
    assert not WEIGHTS.exists()
    assert not Path("data/manifest.json").exists()


def test_weights_of_an_earlier_run_are_removed_where_this_one_uses_none(in_project, tmp_path_factory, monkeypatch):
    file = tmp_path_factory.mktemp("web") / "weights.pth"
    file.write_bytes(CONTENT)
    stand_in_weights(CONTENT, monkeypatch)
    monkeypatch.setenv("RESNET18_WEIGHTS", str(file))
    in_project.set_params(weights="imagenet", offline_fallback=False)
    download.main()
    assert WEIGHTS.exists()

    in_project.set_params(weights="random")
    download.main()

    assert [path.name for path in WEIGHTS.parent.iterdir()] == ["README.txt"]
    assert (manifest()["initial_weights"], manifest()["weights_file"]) == ("random", None)


def test_going_back_after_an_experiment_takes_no_network(in_project, tmp_path_factory, monkeypatch):
    web = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(web, monkeypatch)
    (web / "weights.pth").write_bytes(CONTENT)
    stand_in_weights(CONTENT, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(web))
    monkeypatch.setenv("RESNET18_WEIGHTS", str(web / "weights.pth"))
    in_project.set_params(dataset="mnist", weights="imagenet", offline_fallback=False)
    download.main()
    before = manifest()
    in_project.set_params(dataset="sample", weights="random")
    download.main()
    assert not WEIGHTS.exists()

    shutil.rmtree(web)
    in_project.set_params(dataset="mnist", weights="imagenet")
    download.main()

    assert manifest() == before
    assert WEIGHTS.read_bytes() == CONTENT
    assert {file.name: file.read_bytes() for file in RAW.iterdir()} == published


def test_a_damaged_copy_of_a_download_is_fetched_anew(in_project, tmp_path_factory, monkeypatch):
    web = tmp_path_factory.mktemp("web") / "mnist"
    stand_in_mnist(web, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(web))
    download.download_mnist()
    kept = Path(".dvc/tmp/downloads/t10k-labels-idx1-ubyte.gz")
    whole = kept.read_bytes()

    kept.write_bytes(b"damaged")
    (RAW / "t10k-labels-idx1-ubyte").unlink()
    download.download_mnist()

    assert (RAW / "t10k-labels-idx1-ubyte").read_bytes() == gzip.decompress(whole)
    assert kept.read_bytes() == whole


# Without a network


@needs_posix
def test_without_a_network_the_download_goes_on_with_the_sample_and_warns(in_project, monkeypatch, capsys):
    for variable, proxy in NO_NETWORK.items():
        monkeypatch.setenv(variable, proxy)
    in_project.set_params(dataset="mnist", weights="imagenet")

    download.main()

    output = capsys.readouterr().out
    assert (manifest()["dataset"], manifest()["initial_weights"]) == ("sample", "random")
    assert "SAMPLE" in output
    assert "RANDOM" in output
    assert "mnist/train-images-idx3-ubyte.gz: can't be reached: the proxy: Connection refused" in output
    assert "resnet18-f37072fd.pth: can't be reached: the proxy: Connection refused" in output
    assert "Once the network is there: dvc repro -f download && dvc repro" in output


def test_the_next_download_replaces_the_sample_once_a_mirror_is_there(
    in_project, nothing_published, tmp_path_factory, monkeypatch
):
    in_project.set_params(dataset="mnist")
    download.main()
    before = manifest()["dataset"]

    mirror = tmp_path_factory.mktemp("web") / "mnist"
    published = stand_in_mnist(mirror, monkeypatch)
    monkeypatch.setenv("MNIST_MIRROR", str(mirror))
    download.main()

    assert (before, manifest()["dataset"]) == ("sample", "mnist")
    assert {file.name: file.read_bytes() for file in RAW.iterdir()} == published


@needs_posix
def test_without_a_network_and_without_fallback_the_download_names_mirrors_and_ways_out(
    in_project, nothing_published, monkeypatch
):
    in_project.set_params(dataset="mnist", offline_fallback=False)
    monkeypatch.setenv("MNIST_MIRROR", "no/such/folder")

    with pytest.raises(SystemExit) as exit_:
        download.main()

    message = str(exit_.value)
    assert message.startswith("error: no source has train-images-idx3-ubyte.gz:")
    assert "no/such/folder/train-images-idx3-ubyte.gz: can't be read: No such file or directory" in message
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz: can't be reached: Connection refused" in message
    for way_out in ("MNIST_MIRROR", "dataset=sample", "offline_fallback=true"):
        assert way_out in message
    assert not Path("data/manifest.json").exists()


def test_where_no_packet_finds_its_way_the_fallback_comes_after_one_time_out_a_source(in_project, monkeypatch, capsys):
    in_project.set_params(dataset="mnist", weights="imagenet")
    start = time.monotonic()

    with black_hole() as url:
        monkeypatch.setattr(download.MNIST, "mirrors", [f"{url}first/", f"{url}second/"])
        monkeypatch.setattr(weights, "IMAGENET_URL", f"{url}weights.pth")
        download.main()

    output = capsys.readouterr().out
    assert manifest()["dataset"] == "sample"
    assert output.count("download: asking") == 3  # two mirrors for the first file, one source of the weights
    assert time.monotonic() - start < 10  # three time-outs of half a second, and the sample


# Files that are not the stage's own


@pytest.mark.parametrize(
    "name",
    [
        "data/mnist/notes.txt",
        "data/mnist/MNIST/raw/train-images-idx3-ubyte.gz",
        "data/mnist/MNIST/processed/training.pt",
        "data/weights/mine.pth",
    ],
)
def test_a_strangers_file_is_named_and_stays(in_project, name):
    stranger = Path(name)
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"mine")

    with pytest.raises(SystemExit, match=f"error: {name} is not this project's.*move it elsewhere") as exit_:
        download.main()

    assert "\n" not in str(exit_.value)
    assert stranger.read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", [".DS_Store", "._train-images-idx3-ubyte", "Thumbs.db", "desktop.ini"])
def test_what_a_system_leaves_in_a_folder_disturbs_nobody(trained, name):
    (trained.path / "data/mnist" / name).write_bytes(b"the system's")

    trained.run("python", "-m", "src.download")

    assert trained.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."


@pytest.mark.slow
def test_dvc_repro_leaves_a_strangers_file_where_it_is(trained, fails):
    stranger = trained.path / "data/mnist/notes.txt"
    stranger.write_bytes(b"mine")

    done = trained.run("dvc", "repro", ok=False)

    fails(done, "data/mnist/notes.txt is not this project's")
    assert stranger.read_bytes() == b"mine"


@pytest.mark.parametrize("file", [RAW / "train-images-idx3-ubyte", WEIGHTS])
def test_what_a_kill_left_is_no_stranger_and_is_gone_after_the_run(in_project, file):
    leftover = file.with_name(f".{file.name}.partial")
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")

    download.main()

    assert not leftover.exists()
