"""Getting one file, whose hash is known beforehand, from the first of several sources that has it."""

import hashlib
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from src.download.reach import CONNECT_TIMEOUT, NO_URL, REACH_TIMEOUT, SourceError, innermost, reach

READ_TIMEOUT = 30.0  # seconds without data
DEADLINE = 600.0  # seconds for one attempt as a whole: a server that sends a byte now and then is no source
ATTEMPTS = 3
BACKOFF = 1.0  # seconds before the second attempt, twice that before the third
CHUNK = 1 << 16
NO_SOCKS = "can't be reached: the proxy speaks SOCKS, which needs `pip install PySocks`"


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
            reasons.append(f"{_without_secrets(source)}: {error}")
    raise FetchError(name, reasons)


def _fetch_from(source: str, name: str, size: int, known_hash: str) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        again = f", attempt {attempt} of {ATTEMPTS}" if attempt > 1 else ""
        patience = f" ({REACH_TIMEOUT:.0f} s to connect, {READ_TIMEOUT:.0f} s without data)" if _is_url(source) else ""
        print(f"download: asking {_without_secrets(source)}{again}{patience}")
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
    reach(url)
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
        passing = status >= 500 or status in (requests.codes.request_timeout, requests.codes.too_many_requests)
        raise SourceError(f"answers {status} {error.response.reason}", passing=passing) from error
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
        raise SourceError(f"can't be reached: {proxy}{innermost(error)}", passing=broke) from error
    except (requests.RequestException, HTTPError, OSError) as error:
        raise SourceError(f"breaks off: {innermost(error)}", passing=True) from error


def _is_url(source: str) -> bool:
    return "://" in source


def _without_secrets(source: str) -> str:
    """Leave out a URL's password and query, which may be a key: a log is read by many."""
    return re.sub(r"(?<=//)[^/]*@|\?.*", "", source) if _is_url(source) else source
