"""The variables that the installed libraries read, looked for in the libraries' own files."""

import functools
import importlib.util
import re
from pathlib import Path

import dvclive.env

from src.pipeline.environment import PATTERNS

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "onnxruntime", "dvclive", "tqdm", "PIL")
IN_BINARIES = re.compile(rb"\0([A-Z][A-Z0-9_]{5,80})(?=\0)")
VARIABLE = re.compile(  # a linker stores a name that is another's end only once, hence the overlap
    r"(?=((?:A?CL|ATEN|BLIS|CUBLAS|CUDA|CUDNN|DNNL|GOMP|KMP|MKL|NNPACK|NVIDIA|OMP|ONEDNN|OPENBLAS|ORT|PYTORCH|TORCH|XNN)"
    r"_[A-Z0-9_]{2,}))"
)
ONEDNN = (
    "CPU_ISA_HINTS",
    "DEFAULT_FPMATH_MODE",
    "MAX_CPU_ISA",
    "PRIMITIVE_CACHE_CAPACITY",
)  # after one of two prefixes
IN_SOURCES = re.compile(r"""(?:environ(?:\.get|\.pop|\.setdefault)?\s*[\[(]|getenv\()\s*["']([A-Z][A-Z0-9_]+)["']""")
READ_BEFORE = {  # by the C library and by Python, before a program's first line
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    "PYTHONHASHSEED": "7",
    "PYTHONOPTIMIZE": "1",
    "PYTHONUTF8": "1",
}
NOT_THE_STAGES = {"SHELL"}  # DVC starts a stage by it


@functools.cache
def variables() -> frozenset[str]:
    """Name the variables that `PACKAGES` and the libraries beside them read, but those that are kept by intent."""
    names = {f"{prefix}_{name}" for name in ONEDNN for prefix in ("DNNL", "ONEDNN")}
    names.update(name for name in vars(dvclive.env) if name.isupper())
    for package in PACKAGES:
        folder = Path(importlib.util.find_spec(package).origin).parent
        for file in folder.rglob("*.py"):
            names.update(IN_SOURCES.findall(file.read_text(errors="ignore")))
        for file in (*folder.rglob("*.so*"), *folder.with_name(f"{package}.libs").rglob("*.so*")):
            if "cuda" not in file.name:  # half a gigabyte each
                words = b" ".join(IN_BINARIES.findall(file.read_bytes())).decode()
                names.update(VARIABLE.findall(words))
    kept = re.compile("|".join(pattern.replace("*", ".*") for pattern in PATTERNS))
    return frozenset(
        name for name in names - NOT_THE_STAGES if not kept.fullmatch(name) and not name.startswith(("PYTHON", "GLIBC"))
    )


def odd_values(value: str) -> dict[str, str]:
    """Give all of these variables one value, and those that are read before the first line one that they bear."""
    return dict.fromkeys(variables(), value) | READ_BEFORE
