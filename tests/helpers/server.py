"""Servers on loopback that behave or misbehave."""

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CLOSED = "http://127.0.0.1:9/"  # the discard port: nothing listens
NO_NETWORK = {  # for a command's environment: all that it asks goes through a proxy that is not there
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED),
    **dict.fromkeys(("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"), ""),
}


class Server(ThreadingHTTPServer):
    """A running server."""

    url: str
    paths: list[str]  # that it was asked for, in order


@contextmanager
def serve(
    respond: Callable[[BaseHTTPRequestHandler, int], None], certificate: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Run a server that calls ``respond(handler, number)`` for request 0, 1, …; with a certificate it speaks https."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            with suppress(OSError):  # the client has gone
                respond(self, len(server.paths) - 1)

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            server.socket = certificate.wrap_socket(server.socket, server_side=True)
        server.paths = []
        server.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/file"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def write(*parts: bytes, pause: float = 0) -> Callable[[BaseHTTPRequestHandler, int], None]:
    """Make a server that answers with these bytes, whatever they are, and pauses after each part."""

    def respond(handler: BaseHTTPRequestHandler, _: int) -> None:
        for part in parts:
            handler.wfile.write(part)
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
