"""Getting one file, whose hash is known beforehand, from the first of several sources that has it."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import requests
from tqdm import tqdm

from src.files import atomic_write

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 30.0  # seconds
DEADLINE = 600.0  # seconds for one attempt as a whole: a server that sends a byte now and then is no source
ATTEMPTS = 3
BACKOFF = 1.0  # seconds before the second attempt, twice that before the third
CHUNK = 1 << 16


class SourceError(Exception):
    """One source does not have the file. The message says why, without naming the source."""


class FetchError(Exception):
    """No source has the file. ``reasons`` holds a line for each source."""

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__(f"no source has {name}")
        self.reasons = reasons


def fetch(sources: Iterable[str], path: Path, *, sha256: str, size: int, md5: str | None = None) -> None:
    """Bring a file to ``path`` from the first source that has it with the right size and hashes.

    Args:
        sources: URLs (http, https) or paths of files, tried in this order.
        path: where the file goes. It appears there only when whole and right.
        sha256: in hex.
        size: in bytes; no more than that is ever read.
        md5: in hex, where that is what the publisher gives.

    Raises:
        FetchError: no source has it.
        UserError: it can't be written.
    """
    reasons = []
    for source in sources:
        try:
            _fetch_one(source, path, sha256, size, md5)
        except SourceError as error:
            reasons.append(f"{source}: {error}")
        else:
            return
    raise FetchError(path.name, reasons)


def _fetch_one(source: str, path: Path, sha256: str, size: int, md5: str | None) -> None:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            with atomic_write(path) as file, _open(source) as chunks:
                _copy(chunks, file, path.name, sha256, size, md5)
        except requests.TooManyRedirects as error:
            raise SourceError("redirects in a circle") from error
        except requests.HTTPError as error:
            reason = SourceError(f"answers {error.response.status_code}")
            if error.response.status_code < 500:
                raise reason from error
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise SourceError("is no valid URL") from error
        except requests.RequestException as error:
            reason = SourceError(_describe(error))
        else:
            return
    raise reason


@contextmanager
def _open(source: str) -> Iterator[Iterable[bytes]]:
    """The bytes of a URL or a file, in chunks."""
    if not source.startswith(("http://", "https://")):
        try:
            with Path(source).open("rb") as file:
                yield iter(lambda: file.read(CHUNK), b"")
        except OSError as error:
            if error.filename is None or str(error.filename) != str(Path(source)):
                raise
            raise SourceError(error.strerror) from error
        return
    # Bytes as published: no transparent decompression of a .gz that a server labels as an encoding.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(source, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), headers=headers) as response:
        response.raise_for_status()
        yield _stream(response)


def _stream(response: requests.Response) -> Iterator[bytes]:
    start = time.monotonic()
    while True:
        try:
            chunk = response.raw.read(CHUNK, decode_content=False)
        except Exception as error:  # urllib3 raises its own kinds, and http.client's
            raise requests.ConnectionError(error) from error
        if not chunk:
            return
        yield chunk
        if time.monotonic() - start > DEADLINE:
            raise requests.ReadTimeout(f"not done after {DEADLINE:.0f} s")


def _copy(chunks: Iterable[bytes], file: BinaryIO, name: str, sha256: str, size: int, md5: str | None) -> None:
    """Copy to ``file``; `SourceError` unless size and hashes are right."""
    hashes = {hashlib.sha256(): sha256}
    if md5 is not None:
        hashes[hashlib.md5(usedforsecurity=False)] = md5
    received = 0
    with tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for chunk in chunks:
            received += len(chunk)
            if received > size:
                raise SourceError(f"sends more than the {size:,} bytes of {name}")
            for digest in hashes:
                digest.update(chunk)
            file.write(chunk)
            bar.update(len(chunk))
    if received < size:
        raise requests.ConnectionError(f"ends after {received:,} of {size:,} bytes")
    if any(digest.hexdigest() != expected for digest, expected in hashes.items()):
        raise SourceError("sends a file with the wrong hash")


def _describe(error: requests.RequestException) -> str:
    """The innermost reason, in a few words."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_TIMEOUT:.0f} s"
    if isinstance(error, requests.ReadTimeout) and "not done" not in str(error):
        return f"no data for {READ_TIMEOUT:.0f} s"
    cause = error.args[0] if error.args else error
    cause = getattr(cause, "reason", cause)
    text = str(cause).rpartition(": ")[2].strip("()'\" ")
    return text or type(error).__name__
