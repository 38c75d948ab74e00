"""Several processes, started as torchrun starts them."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(count, arguments, folder, own=None):
    """Processes as torchrun starts them. own: further arguments of each."""
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    given["OMP_NUM_THREADS"] = "1"
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments), *(own[rank] if own else ())],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **given, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(started):
    outputs = [process.communicate(timeout=400) for process in started]
    return [process.returncode for process in started], outputs
