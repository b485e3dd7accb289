"""The environment of a process of this project: a closed list, whatever it inherits.

Libraries read hundreds of variables. Some change the bytes of a result (OpenMP's, MKL's, oneDNN's, PyTorch's), some
open a window or a connection. What is not kept here is not there.
"""

import os
import sys
from fnmatch import fnmatchcase

KEPT = {
    "where programs, libraries and the user's own files lie": (
        *("PATH", "PATHEXT", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*"),
        *("HOME", "USER", "LOGNAME", "TMPDIR", "TMP", "TEMP", "XDG_*"),
        *("SYSTEMROOT", "WINDIR", "COMSPEC", "USERPROFILE", "USERNAME", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA"),
    ),
    "the language and the terminal": ("LANG", "LC_*", "TZ", "TERM", "COLUMNS", "LINES", "NO_COLOR"),
    "DVC, its Studio, and Git": ("DVC_*", "GIT_*"),
    "the download, and what DVC's Studio is sent": (
        *("*MNIST_MIRROR", "*_PROXY", "*_proxy", "NETRC"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    ),
    "which GPU": (
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_*"),
        *("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR", "CUDA_MPS_*", "CUDA_CACHE_PATH"),
    ),
    "the other processes of a training": (
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_*", "ROLE_*", "MASTER_*", "TORCHELASTIC_*"),
        *("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_*", "NCCL_*_DISABLE", "NCCL_DEBUG*"),
    ),
}
PATTERNS = tuple(pattern for patterns in KEPT.values() for pattern in patterns)
# How often a thread of libgomp looks for work before it sleeps. By default it looks for so long that two trainings
# stall each other: each gets 0.32 of the rate of one alone. Where it sleeps too early, one alone is slower. With this
# value each gets more than half, and one alone loses a few percent: `python -m benchmarks.side_by_side`.
SPIN_COUNT = "3000"


def close_environment() -> None:
    """Remove each variable that `KEPT` does not name. Libraries read theirs as they are loaded: to be called before.

    The C library reads its own before the program's first line, and takes other instructions by it, which give other
    sums. Where it is set, this process starts once more, without it.
    """
    starts_anew = "GLIBC_TUNABLES" in os.environ
    for name in list(os.environ):
        if not any(fnmatchcase(name, pattern) for pattern in PATTERNS):
            del os.environ[name]
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    if starts_anew:
        os.execv(sys.executable, sys.orig_argv)
