"""A program for tests: one command after another, each as a process of torchrun runs it, without starting Python again.

Called as `in_turn.py CALLS`, JSON: a list of calls, each a port where the processes meet, and its words. Prints JSON:
exit code, stdout and stderr of each. (At one port for all, a process that is ahead would meet the others' last store.)
"""

import json
import os
import sys
from pathlib import Path

import torch

from tests.conftest import command_in


def main(calls):
    command = command_in(Path())
    done = []
    for port, words in calls:
        os.environ["MASTER_PORT"] = str(port)
        done.append(command(*words))
    sys.stdout.write(json.dumps([[one.returncode, one.stdout, one.stderr] for one in done]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
