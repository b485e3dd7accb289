"""Whether the host of a URL, or the proxy on the way to it, answers at all."""

import itertools
import socket
import threading
import time
from urllib.parse import urlsplit

import requests
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

CONNECT_TIMEOUT = 3.0  # seconds for one of a host's addresses
REACH_TIMEOUT = 6.0  # seconds for a host's name and all its addresses together
NO_URL = "is no valid URL"


class SourceError(Exception):
    """One source does not have the file. The message says why, without naming the source."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing  # another attempt may help


def reach(url: str) -> None:
    """Connect to the host of a URL, or to its proxy, and hang up.

    requests sets the resolver no limit, and gives each address of a host the whole time-out: without a route, minutes.
    """
    try:
        url = str(requests.Request("GET", url).prepare().url)
        proxy = select_proxy(url, get_environ_proxies(url))
        parts = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else url)
        host, port = parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError as error:
        raise SourceError(NO_URL) from error
    outcome: list[OSError | UnicodeError | None] = []

    def connect() -> None:
        try:
            _connect(host, port)
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
        raise SourceError(f"can't be reached: {whose}{innermost(error)}")


def _connect(host: str, port: int) -> None:
    """Connect to one of a host's addresses and hang up.

    IPv6 and IPv4 take turns: where one of them is swallowed on the way, there is time for the other.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = dict.fromkeys(family for family, *_ in found)
    by_family = [[address for family, *_, address in found if family == each] for each in families]
    failure: OSError | None = None
    give_up = time.monotonic() + REACH_TIMEOUT  # nobody waits for longer
    for address in filter(None, itertools.chain(*itertools.zip_longest(*by_family))):
        if time.monotonic() > give_up:
            break
        try:
            socket.create_connection((str(address[0]), port), CONNECT_TIMEOUT).close()
        except OSError as error:
            failure = failure or error
        else:
            return
    raise failure or OSError("its name has no address")


def innermost(error: BaseException) -> str:
    """Find what lies under the wrappers of requests and urllib3, in a few words."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
