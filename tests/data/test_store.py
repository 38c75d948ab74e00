"""What a store says about its images."""

from infdiff.data.demo import DEMO_PATH
from infdiff.data.prepare import Recipe, prepare
from infdiff.data.sources import open_source
from infdiff.data.store import ImageStore


def test_a_store_says_which_sizes_it_holds(store, photos, tmp_path):
    assert store.holds((16, 16))
    assert not store.holds((16, 17))
    prepare(open_source(photos), tmp_path / "n.lmdb", Recipe(size=None), progress=False)
    native = ImageStore(tmp_path / "n.lmdb")  # of 40x60, 64x48 and 33x33 pixels
    assert all(native.holds(size) for size in ((40, 60), (64, 48), (33, 33)))
    assert not any(native.holds(size) for size in ((64, 60), (65, 1), (1, 61)))


def test_the_demo_set_is_whole():
    store = ImageStore(DEMO_PATH)
    assert len(store) == 126
    assert store.read(125).size == (128, 128)
    assert (DEMO_PATH.parent / "LICENSE.txt").read_text().startswith("Fluent Emoji")
