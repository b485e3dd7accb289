#!/usr/bin/env python3
"""Say which digit, or class, is in each image: ``predict.py IMAGE...``, from any folder, with any Python.

It runs src/reader, or src/predict where the classes are no digits, in the project's own environment, or in the one that
is active where the project has none.
"""

import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parent
PROGRAM = HOME / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

if PROGRAM.exists() and Path(sys.prefix).resolve() != PROGRAM.parents[1].resolve():
    command = [str(PROGRAM), __file__, *sys.argv[1:]]
    if os.name == "nt":
        sys.exit(subprocess.call(command))
    os.execv(PROGRAM, command)  # and Ctrl-C is its own affair
if find_spec("torch") is None:
    sys.exit(f"error: no environment yet; run `make reader` in {HOME}")
sys.path[0] = str(HOME)
manifest = HOME / "data" / "manifest.json"
digits = not manifest.exists() or json.loads(manifest.read_text()).get("class_names", []) == list("0123456789")
module = "src.reader" if digits and (HOME / "src" / "reader").is_dir() else "src.predict"
runpy.run_module(module, run_name="__main__", alter_sys=True)
