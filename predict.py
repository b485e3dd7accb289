#!/usr/bin/env python3
"""Say which digit is in each image: ``python3 path/to/predict.py IMAGE...``, from any folder, with any Python.

It runs src/predict in the project's own environment.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
PROGRAM = HOME / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

if Path(sys.prefix).resolve() != PROGRAM.parents[1].resolve() and PROGRAM.exists():
    sys.exit(subprocess.call([str(PROGRAM), __file__, *sys.argv[1:]]))
sys.path[0] = str(HOME)
runpy.run_module("src.predict", run_name="__main__", alter_sys=True)
