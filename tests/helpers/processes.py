"""Processes that train together, started from a test as ``torchrun`` starts them."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from helpers.stages import START_METHOD
from src.train.processes import process_group


def run_processes(count: int, folder: Path, function: Callable, *args: Any) -> list:
    """Call ``function(group, *args)`` in ``count`` processes that form one group.

    Args:
        count: how many.
        folder: a folder for what they return.
        function: of a module, not a lambda: the processes import it. What it returns, ``torch.save`` must take.
        args: for all of them the same.

    Returns:
        What each of them returned, by rank.
    """
    arguments = (torchrun_variables(count), folder, function, args)
    torch.multiprocessing.start_processes(_run, arguments, nprocs=count, start_method=START_METHOD)
    return [torch.load(folder / f"{rank}.returned", weights_only=False) for rank in range(count)]


def torchrun_variables(count: int) -> dict[str, str]:
    """Choose what ``torchrun`` sets for each of ``count`` processes of one machine: all but the ``RANK``."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {
        "TORCHELASTIC_RUN_ID": "test",  # by which PyTorch tells that torchrun started it
        "TORCHELASTIC_RESTART_COUNT": "0",
        "GROUP_WORLD_SIZE": "1",
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def _run(rank: int, shared: dict[str, str], folder: Path, function: Callable, args: tuple) -> None:
    os.environ |= shared | {"RANK": str(rank)}
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")) as group:
        result = function(group, *args)
    torch.save(result, folder / f"{rank}.returned")
