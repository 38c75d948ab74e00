"""A server of the pages of a tiny run, in a thread of the tests."""

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch

from infdiff.methods.sampling import SamplingOptions
from infdiff.runs.trained import TrainedModel
from infdiff.viewer.serve import make_server, painter_for
from infdiff.viewer.zoomed import Painter
from tests.conftest import copy_of


@dataclass(frozen=True)
class Running:
    """The server's address, what it draws with, and its folder of tiles."""

    url: str
    port: int
    painter: Painter
    folder: Path


@pytest.fixture(scope="session")
def painter(points_run, tmp_path_factory) -> Painter:
    """16 pixels, doubled five times."""
    run = copy_of(points_run, tmp_path_factory.mktemp("viewed"))
    trained = TrainedModel.load(run, torch.device("cpu"))
    return painter_for(trained, SamplingOptions.of(trained.method, (16, 16)), (500, 300))


@contextmanager
def served(painter: Painter, folder: Path) -> Iterator[Running]:
    """A server of the pages in a thread, until the end of the block. No request may end in a traceback."""
    server = make_server(painter, folder, [0], 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        with mock.patch.object(traceback, "print_exc") as errors:
            yield Running(server.url, server.port, painter, folder)
    finally:
        server.close()
        thread.join()
    assert errors.call_count == 0


@pytest.fixture
def running(painter, tmp_path) -> Iterator[Running]:
    """A server with no tile yet."""
    with served(painter, tmp_path / "tiles") as running:
        yield running
