"""Install a requirements file into .venv, in two lines: uv's or pip's own go to a log. Where all is there, do nothing.

usage: .venv/bin/python .ci/install.py requirements.txt

On Linux PyTorch has two builds. TORCH=cpu takes the CPU build, TORCH=cuda the one with CUDA's libraries. By default
.venv keeps the one that it has, and a new one gets the CPU build where there is no NVIDIA GPU and it can be had.
"""

import ast
import os
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
SILENCE = 5  # seconds that this index may be silent
PATIENCE = 20  # seconds that it has for an answer, the start of pip on a busy machine included
CUDA_ONLY = re.compile(r"^(cuda|nvidia|triton)\b.*\n", re.MULTILINE)  # lines of a requirements file
LOG = Path(".venv/setup.log")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
UV_VARIABLES = {  # uv's, for settings of pip's
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
OF_PIP_ALONE = {  # settings that change nothing of what is installed, and from where
    "cache-dir", "config-file", "default-timeout", "disable-pip-version-check", "no-cache-dir", "no-color", "no-input",
    "no-warn-script-location", "progress-bar", "quiet", "require-virtualenv", "retries", "root-user-action", "timeout",
    "verbose",
}  # fmt: skip


def main() -> None:
    begin, file, torch = time.monotonic(), Path(sys.argv[1]), os.environ.get("TORCH", "")
    if torch not in ("", "cpu", "cuda"):
        sys.exit(f"error: TORCH={torch}: should be cpu or cuda")
    text, stamp, installed = file.read_text(), LOG.with_name(f"{file.name}.installed"), build_of_torch()
    pins = re.findall(r"^(?:torch|torchvision)==[^\s;]+", text, re.MULTILINE) if sys.platform == "linux" else []
    torch = torch if pins else ""
    if torch in ("", installed) and stamp.is_file() and stamp.read_text() == text:
        return

    LOG.write_text("")
    why = ""
    if pins and not torch:
        torch, why = (installed, "") if installed else choose_build(pins[0])
    what = "what .venv lacks"
    if torch and torch != installed:
        size, needed = ("0.4 GB", 4) if torch == "cpu" else ("3.2 GB, 6.5 GB in .venv", 10)
        what = f"PyTorch for {torch.upper()}{why} and the rest, a download of about {size}"
        free = int(output("df", "-Pk", ".venv/.").splitlines()[-1].split()[3]) // 1_000_000
        if free < needed:
            sys.exit(f"error: {free} GB are free here, {needed} GB are needed; nothing was installed")
    print(f"setup: {file} into .venv: {what}. To watch: tail -f {LOG}", flush=True)

    uv = uv_environment()
    if torch == "cpu":
        install(uv, "--no-deps", *(f"{pin}+cpu" for pin in pins), index=CPU_INDEX)
        file = LOG.with_name("cpu.txt")
        file.write_text(CUDA_ONLY.sub("", text))
    elif installed == "cpu":
        run(*PIP, "uninstall", "--yes", "torch", "torchvision")
    install(uv, "-r", str(file))
    stamp.write_text(text)
    print(f"setup: done in {time.monotonic() - begin:.0f} s")


def build_of_torch() -> str:
    """Which build of PyTorch is in this environment: cpu, cuda, or none."""
    try:
        return "cpu" if "+cpu" in metadata.version("torch") else "cuda"
    except metadata.PackageNotFoundError:
        return ""


def choose_build(pin: str) -> tuple[str, str]:
    """The build of PyTorch for this machine, and why."""
    if "GPU" in output("nvidia-smi", "-L"):
        return "cuda", " (there is an NVIDIA GPU)"
    command = [*PIP, f"--timeout={SILENCE}", "--retries=0", "index", "versions", "torch", "--index-url", CPU_INDEX]
    offered = output(*command, timeout=PATIENCE)
    if f"{pin.partition('==')[2]}+cpu" in re.split(r"[\s,()]+", offered):
        return "cpu", " (there is no NVIDIA GPU)"
    return "cuda", f" (there is no NVIDIA GPU, but {CPU_INDEX} did not offer the CPU build)"


def uv_environment() -> dict[str, str] | None:
    """uv's variables for what pip is configured to do, or None where uv may not do the same. Installs uv.

    uv knows nothing of pip's settings. pip takes those of a later section for those of an earlier one.
    """
    found = re.findall(r"^(global|install|:env:)\.(\S+?)=(.+)$", output(*PIP, "config", "list"), re.MULTILINE)
    sections = ("global", "install", ":env:")
    settings = {name: ast.literal_eval(value) for at, name, value in sorted(found, key=lambda s: sections.index(s[0]))}
    (uv,) = re.findall(r"^uv==[^\s;]+", Path("requirements-dev.txt").read_text(), re.MULTILINE)
    if settings.keys() - UV_VARIABLES.keys() - OF_PIP_ALONE or not run(*PIP, "install", uv):
        return None
    variables = {variable: settings[name] for name, variable in UV_VARIABLES.items() if name in settings}
    if "UV_FIND_LINKS" in variables:
        variables["UV_FIND_LINKS"] = ",".join(variables["UV_FIND_LINKS"].split())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_") or name == "UV_CACHE_DIR"}
    as_pip_does = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "1", "UV_NO_CONFIG": "1"}
    return kept | variables | as_pip_does


def install(uv: dict[str, str] | None, *what: str, index: str | None = None) -> None:
    """Install by uv, which is faster, or where that fails by pip, whose word counts."""
    by_uv = (sys.executable, "-m", "uv", "pip", "install", "--compile-bytecode", "--python", sys.executable, *what)
    if uv is not None and run(*by_uv, *(("--default-index", index) if index else ()), environment=uv):
        return
    before = LOG.stat().st_size
    if not run(*PIP, "install", *what, *(("--index-url", index) if index else ())):
        print("\n".join(LOG.read_bytes()[before:].decode(errors="replace").splitlines()[-15:]), file=sys.stderr)
        sys.exit(f"error: pip failed; all that it said is in {LOG}")


def output(*command: str, timeout: float | None = None) -> str:
    """What a command prints; nothing where it is not there, or takes longer than these seconds."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def run(*command: str, environment: dict[str, str] | None = None) -> bool:
    """Run a command whose lines go to the log, and tell whether it worked."""
    with LOG.open("a") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
    return done.returncode == 0


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command again to go on")
