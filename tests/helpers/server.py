"""Servers on loopback that behave or misbehave."""

import http.server
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

CLOSED = "http://127.0.0.1:9/"  # the discard port: nothing listens
NO_NETWORK = {  # for a command's environment: all that it asks goes through a proxy that is not there
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED),
    **dict.fromkeys(("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"), ""),
}


class Server:
    """A running server. ``paths`` lists what it was asked for, in order."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"{address}/file"
        self.paths: list[str] = []


@contextmanager
def serve(
    respond: Callable[[BaseHTTPRequestHandler, int], None], certificate: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Run a server that calls ``respond(handler, number)`` for request 0, 1, …; with a certificate it speaks https."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = len(server.paths)
            server.paths.append(self.path)
            with suppress(OSError):  # the client has gone
                respond(self, number)

        do_CONNECT = do_GET  # what a proxy is asked

        def do_HEAD(self) -> None:
            self.send_error(405)  # uv then asks by GET

        def log_message(self, *_: object) -> None:
            pass

    class Listener(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    listener = Listener(("127.0.0.1", 0), Handler)
    if certificate:
        listener.socket = certificate.wrap_socket(listener.socket, server_side=True)
    scheme = "https" if certificate else "http"
    server = Server(f"{scheme}://127.0.0.1:{listener.server_port}")
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def write(*parts: bytes, pause: float = 0) -> Callable[[BaseHTTPRequestHandler, int], None]:
    """Make a server that answers with these bytes, whatever they are, and pauses after each part."""

    def respond(handler: BaseHTTPRequestHandler, _: int) -> None:
        for part in parts:
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(pause)

    return respond


def send(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer with ``content``, as a good server does."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def self_signed_certificate(folder: Path) -> ssl.SSLContext:
    """Make a certificate for 127.0.0.1 that nobody has signed but itself; ``folder/server.pem`` holds it."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl, to make a certificate")
    file = folder / "server.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", folder / "key.pem", "-out", file], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, folder / "key.pem")
    return context
