"""Getting one file, whose hash is known beforehand, from the first of several sources that has it."""

import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, ReadTimeoutError

from src.pipeline.files import atomic_write

CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 30.0  # seconds
DEADLINE = 600.0  # seconds for one attempt as a whole: a server that sends a byte now and then is no source
ATTEMPTS = 3
BACKOFF = 1.0  # seconds before the second attempt, twice that before the third
CHUNK = 1 << 16


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
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with atomic_write(path) as file:
                _copy(_chunks(source), file, path.name, sha256, size, md5)
        except SourceError as error:
            if not error.passing or attempt == ATTEMPTS:
                raise
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        else:
            return


def _chunks(source: str) -> Iterator[bytes]:
    """The bytes of a URL or a file. Its own errors come as `SourceError`, so that they can't pass for the writer's."""
    if source.startswith(("http://", "https://")):
        yield from _chunks_of_url(source)
        return
    try:
        with Path(source).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(error.strerror or str(error)) from error


def _chunks_of_url(url: str) -> Iterator[bytes]:
    start = time.monotonic()
    # Bytes as published: a .gz is not to be unpacked because a server calls it an encoding.
    headers = {"Accept-Encoding": "identity"}
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), headers=headers) as response:
            response.raise_for_status()
            # read1 returns what has come; read would wait for the whole chunk, however slowly it trickles in.
            while chunk := response.raw.read1(CHUNK, decode_content=False):
                yield chunk
                if time.monotonic() - start > DEADLINE:
                    raise SourceError(f"not done after {DEADLINE:.0f} s")
    except requests.HTTPError as error:
        status = error.response.status_code
        raise SourceError(f"answers {status} {error.response.reason}", passing=status >= 500) from error
    except requests.TooManyRedirects as error:
        raise SourceError("redirects in a circle") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise SourceError("is no valid URL") from error
    except requests.ConnectTimeout as error:
        raise SourceError(f"no connection within {CONNECT_TIMEOUT:.0f} s", passing=True) from error
    except (requests.ReadTimeout, ReadTimeoutError) as error:
        raise SourceError(f"no data for {READ_TIMEOUT:.0f} s", passing=True) from error
    except (requests.RequestException, HTTPError, OSError) as error:
        raise SourceError(_innermost(error), passing=True) from error


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
        raise SourceError(f"ends after {received:,} of {size:,} bytes", passing=True)
    if any(digest.hexdigest() != expected for digest, expected in hashes.items()):
        raise SourceError("sends a file with the wrong hash")


def _innermost(error: BaseException) -> str:
    """What lies under the wrappers of requests and urllib3, in a few words."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
