"""Several processes, started as torchrun starts them."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT
from tests.forking import ONE_THREAD, Forked


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(count, arguments, folder, own=None, afresh=False):
    """Processes as torchrun starts them. own: further arguments of each; afresh: they have different hash seeds."""
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count), **ONE_THREAD}
    started = []
    for rank in range(count):
        words = [*map(str, arguments), *(own[rank] if own else ())]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **given, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        if afresh and rank == count - 1:
            command, pipe = [sys.executable, *words], subprocess.PIPE
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)
        else:
            process = Forked(*words, folder=folder, environment=environment)
        started.append(process)
    return started


def finish(started, seconds=400.0):
    outputs = [process.communicate(timeout=seconds) for process in started]
    return [process.returncode for process in started], outputs
