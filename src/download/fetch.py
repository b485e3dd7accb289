"""Getting a file whose hash is known beforehand from the first of several sources that has it."""

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from tqdm import tqdm
from yarl import URL

from src.pipeline.files import write_file
from src.pipeline.process import UserError
from src.pipeline.project import project_root

CONNECT_TIMEOUT = 6.0  # seconds for a host's name, all its addresses, a proxy and TLS together
READ_TIMEOUT = 30.0  # seconds without data
DEADLINE = 600.0  # seconds for one attempt as a whole, from the host's name to the last byte
LARGEST = 2**28  # bytes, of any file: a source that sends more is left
ATTEMPTS = 3
BACKOFF = 1.0  # seconds before the second attempt, twice that before the third


class FetchError(Exception):
    """No source has the file. ``reasons`` holds a line for each source."""

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__(f"no source for {name}")
        self.reasons = reasons


class SourceError(Exception):
    """One source does not have the file. The message says why, without naming the source."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing  # another attempt may help


def fetch(name: str, sources: list[str], known_hash: str) -> bytes:
    """Read a file from the first source that has it whole and right, and say which source is asked.

    Args:
        name: of the file, for the lines that are printed.
        sources: URLs (http, https) or paths of files, tried in this order.
        known_hash: such as ``md5:…`` or ``sha256:…``, in hex; its beginning is enough, as for `torch.hub`.

    Raises:
        FetchError: no source has it.
    """
    reasons = []
    for source in sources:
        for attempt in range(1, ATTEMPTS + 1):
            limits = f"{CONNECT_TIMEOUT:.0f} s to connect, {READ_TIMEOUT:.0f} s without data"
            again = f", attempt {attempt} of {ATTEMPTS}" if attempt > 1 else ""
            print(f"download: asking {_public(source)}{again}{f' ({limits})' if _is_url(source) else ''}")
            try:
                return _read(source, name, known_hash)
            except SourceError as error:
                if not error.passing or attempt == ATTEMPTS:
                    reasons.append(f"{_public(source)}: {error}")
                    break
                print(f"download: it {error}")
                time.sleep(BACKOFF * 2 ** (attempt - 1))
    raise FetchError(name, reasons)


def _read(source: str, name: str, known_hash: str) -> bytes:
    try:
        content = asyncio.run(_read_url(source, name)) if _is_url(source) else Path(source).read_bytes()
    except OSError as error:
        raise SourceError(f"can't be read: {error.strerror or error}") from error
    algorithm, _, expected = known_hash.partition(":")
    if not hashlib.new(algorithm, content, usedforsecurity=False).hexdigest().startswith(expected):
        raise SourceError("sends a file with the wrong hash")
    return content


async def _read_url(url: str, name: str) -> bytes:
    asyncio.get_running_loop().set_default_executor(_Resolvers())
    logging.getLogger("aiohttp.client").setLevel(logging.ERROR)  # it warns of proxies that `_choose_proxy` sees to
    certificates = ssl.create_default_context()
    certificates.load_verify_locations(certifi.where())  # Python for macOS, as python.org has it, brings none
    timeout = aiohttp.ClientTimeout(connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT, ceil_threshold=DEADLINE)
    headers = {"Accept-Encoding": "identity"}  # as published: a .gz stays packed, even if a server calls it an encoding
    connector = aiohttp.TCPConnector(ssl=certificates, force_close=True)
    session = aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout, auto_decompress=False, trust_env=True
    )
    clock = asyncio.timeout(DEADLINE)
    content = bytearray()
    try:
        async with clock, session, session.get(url, raise_for_status=True, middlewares=[_choose_proxy]) as response:
            size = response.content_length
            with tqdm(desc=name, total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
                # aiohttp stops at a malformed chunk without an error, and its own time-out does not end the wait.
                while chunk := await asyncio.wait_for(response.content.readany(), READ_TIMEOUT):
                    content += chunk
                    bar.update(len(chunk))
                    if len(content) > LARGEST:
                        raise SourceError(f"sends more than {LARGEST:,} bytes")
    except aiohttp.ConnectionTimeoutError as error:  # many of these types are kinds of others: the order matters
        raise SourceError(f"can't be reached within {CONNECT_TIMEOUT:.0f} s") from error
    except TimeoutError as error:
        slow = f"is not done after {DEADLINE:.0f} s" if clock.expired() else f"sends no data for {READ_TIMEOUT:.0f} s"
        raise SourceError(slow, passing=not clock.expired()) from error
    except aiohttp.ClientConnectorError as error:
        who = "the proxy " * isinstance(error, aiohttp.ClientProxyConnectionError)
        # asyncio says "Connect call failed" where the system says "Connection refused".
        cause = os.strerror(error.errno or 0) if isinstance(error.os_error, ConnectionError) else error.strerror
        raise SourceError(f"can't be reached: {who}{error.host}:{error.port}: {cause}") from error
    except aiohttp.TooManyRedirects as error:
        raise SourceError("redirects in a circle") from error
    except aiohttp.ClientResponseError as error:  # aiohttp raises it for an answer that is not HTTP too, as a 400
        who = "the proxy " * isinstance(error, aiohttp.ClientHttpProxyError)
        passing = error.status >= 500 or error.status in (408, 429)  # the last two ask for patience
        raise SourceError(f"{who}answers {error.status} {' '.join(error.message.split())}", passing=passing) from error
    except (ValueError, aiohttp.NonHttpUrlClientError) as error:
        raise SourceError("is not a valid http or https URL") from error
    except (OSError, aiohttp.ClientError) as error:
        raise SourceError(f"breaks off ({type(error).__name__})", passing=True) from error
    return bytes(content)


async def _choose_proxy(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request, or what a redirect makes of it, through the proxy that the environment names for it.

    aiohttp's own choice leaves out ``all_proxy`` and proxies that speak TLS, and takes one that speaks SOCKS for HTTP.
    """
    proxies = getproxies()
    proxy = proxies.get(request.url.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(request.url.host or ""):
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
        if url.scheme not in ("http", "https"):
            raise SourceError(f"can't be reached: the proxy {url.host} speaks {url.scheme}, not HTTP")
        request.update_proxy(url, None, None)
    return await send(request)


class _Resolvers(ThreadPoolExecutor):
    """The threads that look up names. The system may take minutes for that; nobody waits for it."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def _is_url(source: str) -> bool:
    return "://" in source


def _public(source: str) -> str:
    """Leave out a URL's password and query, which may be a key: a log is read by many."""
    return re.sub(r"(?<=//)[^/]*@|\?.*", "", source) if _is_url(source) else source


def fetch_and_keep(name: str, sources: list[str], known_hash: str) -> bytes:
    """Do what `fetch` does, once: all runs of this project share what was fetched.

    The stage's folders hold what the last run used. An experiment with the sample or other weights takes the rest away,
    and going back needs no network.
    """
    kept = project_root() / ".dvc" / "tmp" / "downloads" / name
    content = fetch(name, [*([str(kept)] if kept.is_file() else []), *sources], known_hash)
    if not kept.is_file() or kept.read_bytes() != content:
        with contextlib.suppress(UserError):  # this run goes on without the copy
            write_file(kept, content, suffix=f".{os.getpid()}")  # two runs of the queue may be at it
    return content


def from_environment(variable: str) -> list[str]:
    """List the one source, a URL or a path, that an environment variable names, if any."""
    return [value if _is_url(value) else str(resolve(value))] if (value := os.environ.get(variable)) else []


def resolve(path: str) -> Path:
    """Find what a user means by a path: it starts at the project, also where DVC runs an experiment elsewhere."""
    try:
        return project_root() / Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user") from error
