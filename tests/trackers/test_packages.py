"""TensorBoard, W&B and Trackio themselves: what their own readers find after a run that was killed and continued."""

import importlib
import json
import struct

import pytest
from PIL import Image

from infdiff.training.log import Log

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def picture(folder, step):
    path = folder / "samples" / f"samples-{step:08d}.png"
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (6, 4), (step, 20, 30)).save(path)
    return path


def log_two_calls(folder, name):
    """A run killed at step 6 that goes on from step 4: what it logs then differs, to be told apart."""
    (folder / "config.yaml").write_text("name: x\ntrain:\n  steps: 8\n")
    for resumed, steps, value in ((0, (2, 4, 6), 1.0), (4, (6, 8), 2.0)):
        log = Log(folder / "log.jsonl", resumed)
        with log.followed((name,), pytest.fail):
            for step in steps:
                log.write({"step": step, "loss": value * step, "losses": {"8x8": value}, "skipped": None})
                if step == 4:
                    log.write({"step": 4, "validation_loss": 0.25})
                if step in (4, 8):
                    log.images(step, [picture(folder, step)])


def test_tensorboard_reads_one_curve(tmp_path):
    pytest.importorskip("tensorboard")
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    log_two_calls(tmp_path, "tensorboard")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    reader = events.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    tags = reader.Tags()
    assert (sorted(tags["scalars"]), tags["images"]) == (["loss", "losses/8x8", "validation_loss"], ["samples"])
    assert [(e.step, e.value) for e in reader.Scalars("loss")] == [(2, 2.0), (4, 4.0), (6, 12.0), (8, 16.0)]
    assert [(e.step, e.value) for e in reader.Scalars("losses/8x8")] == [(2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0)]
    assert [(e.step, e.value) for e in reader.Scalars("validation_loss")] == [(4, 0.25)]
    assert [(e.step, e.width, e.height) for e in reader.Images("samples")] == [(4, 6, 4), (8, 6, 4)]


def test_wandb_has_one_run_of_one_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log_two_calls(tmp_path, "wandb")
    name = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    stored = sorted((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(stored) == 2, sorted((tmp_path / "wandb").iterdir())
    rows = [row for path in stored for row in history(path)]
    losses = [(row["_step"], row["loss"]) for row in rows if "loss" in row]
    # What was sent before the kill is not sent again.
    assert losses == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 16.0)]
    assert [row["validation_loss"] for row in rows if "validation_loss" in row] == [0.25]
    assert [row["_step"] for row in rows if row.get("samples/_type") == "image-file"] == [4, 8]


def history(path):
    """The rows of one stored run of W&B, parsed by its own classes."""
    pb = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for data in entries(path.read_bytes()):
        record = pb.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def entries(content, block=32768):
    """The entries of a log in LevelDB's format: blocks of chunks, each with its checksum, length and kind before it."""
    place, entry = 7, b""  # after W&B's own header
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        entry += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def test_trackio_has_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    storage = importlib.import_module("trackio.sqlite_storage")
    log_two_calls(tmp_path, "trackio")
    records = storage.SQLiteStorage.get_run_records("infdiff")
    assert len(records) == 1
    rows = storage.SQLiteStorage.get_logs("infdiff", records[0]["name"])
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 16.0)]
    assert [row["validation_loss"] for row in rows if "validation_loss" in row] == [0.25]
    assert [row["step"] for row in rows if "samples" in row] == [4, 8]
    assert list((tmp_path / "trackio").glob("infdiff.db"))
