"""Every kernel compiles for the architectures that people have, in every type, without a GPU."""

import pytest
import torch

from infdiff.ops.gpu import enlarged, nvrtc

ARCHITECTURES = ["sm_80", "sm_90", "sm_100"]
FEATURES = [{"SCALAR": s, "CHANNELS": c} for s, c in ((0, 64), (1, 64), (2, 64), (2, 65), (0, 3), (2, 1024))]
SEVEN = {"WINDOW_HEIGHT": 7, "WINDOW_WIDTH": 7}
ENLARGED = [
    {"SCALAR": scalar, "CHANNELS": channels}
    | enlarged.tile_of(channels, window, step, torch.device("cpu")).defines(window, step)
    for scalar, channels, window, step in (
        (2, 64, (7, 7), (4, 4)),
        (2, 1024, (7, 7), (1, 1)),
        (1, 64, (7, 7), (2, 2)),
        (0, 64, (7, 7), (8, 8)),
        (0, 8, (3, 13), (3, 1)),
    )
]
SETTINGS = [
    ("lattice_index.cu", {}),
    ("permuted_pixels.cu", {}),
    *[("inverse_count.cu", {"WIDE": wide}) for wide in (0, 1)],
    ("nearest_points.cu", {}),
    *[("interpolation.cu", f) for f in FEATURES],
    ("sum_chunks.cu", {}),
    *[("neighbour_lists.cu", {"WINDOW_HEIGHT": h, "WINDOW_WIDTH": w}) for h, w in ((1, 1), (7, 7), (13, 13), (3, 63))],
    *[("listed_conv.cu", f | SEVEN) for f in FEATURES],
    *[("listed_conv.cu", FEATURES[0] | {"WINDOW_HEIGHT": h, "WINDOW_WIDTH": w}) for h, w in ((13, 13), (3, 63))],
    *[("scaled_rows.cu", f) for f in FEATURES],
    *[("sparse_conv.cu", f | SEVEN | {"NEIGHBOURS": n}) for f in FEATURES for n in (0, 1)],
    *[("sparse_conv.cu", FEATURES[2] | {"WINDOW_HEIGHT": w, "WINDOW_WIDTH": 63, "NEIGHBOURS": 0}) for w in (1, 63)],
    *[("dense_conv.cu", f | SEVEN) for f in FEATURES],
    *[("enlarged_conv.cu", defines) for defines in ENLARGED],
    *[("modulated_norm.cu", f | {"MODULATION": f["SCALAR"]}) for f in FEATURES],
    *[("modulated_norm.cu", {"SCALAR": 2, "CHANNELS": c, "MODULATION": 2}) for c in (2048, 511)],
    *[("dense_conv.cu", FEATURES[0] | {"WINDOW_HEIGHT": h, "WINDOW_WIDTH": w}) for h, w in ((1, 127), (127, 1))],
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFDIFF_CACHE", str(tmp_path))


def test_no_source_is_forgotten():
    assert {name for name, _ in SETTINGS} == {p.name for p in nvrtc.SOURCES.glob("*.cu")}


def compiled():
    """Everything for one architecture, and for each other one a setting of each source; the rest takes minutes."""
    first = dict(reversed(SETTINGS))
    for source, defines in SETTINGS:
        for architecture in ARCHITECTURES:
            quick = architecture == "sm_90" or first[source] is defines
            yield pytest.param(source, defines, architecture, marks=() if quick else pytest.mark.long)


@pytest.mark.parametrize(("source", "defines", "architecture"), list(compiled()), ids=lambda value: str(value))
def test_kernels_compile(source, defines, architecture):
    code = nvrtc.machine_code(source, defines, architecture)
    assert code[:4] == b"\x7fELF"


def test_a_broken_source_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void broken(int* x) { x[0] = wrong; }')
    monkeypatch.setattr(nvrtc, "SOURCES", tmp_path)
    with pytest.raises(nvrtc.CompileError, match=r"broken.cu for sm_90: .*wrong") as error:
        nvrtc.machine_code("broken.cu", {}, "sm_90")
    assert "\n" not in str(error.value)
