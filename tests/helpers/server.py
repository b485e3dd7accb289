"""Servers on loopback that behave, misbehave, or are not there."""

import http.server
import socket
import ssl
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


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield the URL of an address that never answers, as where packets have no route: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        time.sleep(0.1)
        try:
            socket.create_connection(listener.getsockname(), timeout=0.3).close()
            pytest.skip("this system's queues of connections do not fill")
        except ConnectionRefusedError:  # Windows and macOS refuse what does not fit
            pytest.skip("this system refuses what its queue of connections does not hold")
        except TimeoutError:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            for client in waiting:
                client.close()


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
    x509 = pytest.importorskip("cryptography.x509")
    from datetime import datetime, timedelta
    from ipaddress import IPv4Address

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=2))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
