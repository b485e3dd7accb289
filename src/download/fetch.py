"""Getting one file, whose hash is known beforehand, from the first of several sources that has it."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

CONNECT_TIMEOUT, READ_TIMEOUT = 3.0, 30.0  # seconds; the first is for one of a host's addresses
REACH_TIMEOUT = 6.0  # seconds for a host's name and all its addresses together
DEADLINE = 600.0  # seconds for one attempt as a whole: a server that sends a byte now and then is no source
ATTEMPTS = 3
BACKOFF = 1.0  # seconds before the second attempt, twice that before the third
CHUNK = 1 << 16
NO_URL = "is no valid URL"
NO_SOCKS = "can't be reached: the proxy speaks SOCKS, for which `pip install PySocks` is missing"


class SourceError(Exception):
    """One source does not have the file. The message says why, without naming the source."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing  # another attempt may help


class FetchError(Exception):
    """No source has the file. ``reasons`` holds a line for each source."""

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__(f"no source has {name}")
        self.reasons = reasons


def fetch(name: str, sources: Iterable[str], size: int, known_hash: str) -> bytes:
    """Read a file from the first source that has it whole and right, and say which source is asked.

    Args:
        name: of the file, for the lines that are printed.
        sources: URLs (http, https) or paths of files, tried in this order.
        size: in bytes; no more than that is ever read.
        known_hash: such as ``md5:…`` or ``sha256:…``, in hex.

    Raises:
        FetchError: no source has it.
    """
    reasons = []
    for source in sources:
        try:
            return _fetch_from(source, name, size, known_hash)
        except SourceError as error:
            reasons.append(f"{source}: {error}")
    raise FetchError(name, reasons)


def _fetch_from(source: str, name: str, size: int, known_hash: str) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        again = f", attempt {attempt} of {ATTEMPTS}" if attempt > 1 else ""
        patience = f" ({REACH_TIMEOUT:.0f} s to connect, {READ_TIMEOUT:.0f} s without data)" if _is_url(source) else ""
        print(f"download: asking {source}{again}{patience}")
        try:
            return _read(source, name, size, known_hash)
        except SourceError as error:
            if not error.passing or attempt == ATTEMPTS:
                raise
            print(f"download: it {error}")
            time.sleep(BACKOFF * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _read(source: str, name: str, size: int, known_hash: str) -> bytes:
    content = bytearray()
    with tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for chunk in _chunks(source):
            content += chunk
            bar.update(len(chunk))
            if len(content) > size:
                raise SourceError(f"sends more than the {size:,} bytes of {name}")
    if len(content) < size:
        raise SourceError(f"ends after {len(content):,} of {size:,} bytes", passing=True)
    algorithm, _, expected = known_hash.partition(":")
    if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != expected:
        raise SourceError("sends a file with the wrong hash")
    return bytes(content)


def _chunks(source: str) -> Iterator[bytes]:
    if _is_url(source):
        yield from _chunks_of_url(source)
        return
    try:
        with Path(source).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(f"can't be read: {error.strerror or error}") from error


def _chunks_of_url(url: str) -> Iterator[bytes]:
    start = time.monotonic()
    _reach(url)
    # Bytes as published: a .gz is not to be unpacked because a server calls it an encoding.
    headers = {"Accept-Encoding": "identity"}
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), headers=headers) as response:
            response.raise_for_status()
            # read1 returns what has come; read would wait for the whole chunk, however slowly it trickles in.
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                yield chunk
                if time.monotonic() - start > DEADLINE:
                    raise SourceError(f"is not done after {DEADLINE:.0f} s")
    except requests.HTTPError as error:
        status = error.response.status_code
        raise SourceError(f"answers {status} {error.response.reason}", passing=status >= 500) from error
    except requests.TooManyRedirects as error:
        raise SourceError("redirects in a circle") from error
    except requests.exceptions.InvalidSchema as error:
        raise SourceError(NO_SOCKS if "SOCKS" in str(error) else NO_URL) from error
    except ValueError as error:  # what requests and urllib3 say of a URL are kinds of it
        raise SourceError(NO_URL) from error
    except requests.ConnectTimeout as error:
        raise SourceError(f"can't be reached within {CONNECT_TIMEOUT:.0f} s") from error
    except (requests.ReadTimeout, ReadTimeoutError) as error:
        raise SourceError(f"sends no data for {READ_TIMEOUT:.0f} s", passing=True) from error
    except requests.ConnectionError as error:  # before an answer; only a connection that broke is worth a second try
        proxy = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
        broke = isinstance(error.args[0], ProtocolError)
        raise SourceError(f"can't be reached: {proxy}{_innermost(error)}", passing=broke) from error
    except (requests.RequestException, HTTPError, OSError) as error:
        raise SourceError(f"breaks off: {_innermost(error)}", passing=True) from error


def _reach(url: str) -> None:
    """Connect to the host of a URL, or to its proxy, and hang up.

    requests sets the resolver no limit, and gives each address of a host the whole time-out: without a route, minutes.
    """
    try:
        url = str(requests.Request("GET", url).prepare().url)
        proxy = select_proxy(url, get_environ_proxies(url))
        parts = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else url)
        address = parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError as error:
        raise SourceError(NO_URL) from error
    outcome: list[OSError | UnicodeError | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, CONNECT_TIMEOUT).close()
            outcome.append(None)
        except (OSError, UnicodeError) as error:  # the second, for a name that can be none
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)  # it may hang in the resolver for longer than anybody waits
    thread.start()
    thread.join(REACH_TIMEOUT)
    error = outcome[0] if outcome else TimeoutError()
    whose = "the proxy: " if proxy else ""
    if isinstance(error, UnicodeError):
        raise SourceError(NO_URL)
    if isinstance(error, TimeoutError):
        raise SourceError(f"can't be reached: {whose}no answer within {REACH_TIMEOUT:.0f} s")
    if error:
        raise SourceError(f"can't be reached: {whose}{_innermost(error)}")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _innermost(error: BaseException) -> str:
    """Find what lies under the wrappers of requests and urllib3, in a few words."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
