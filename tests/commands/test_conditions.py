"""Conditional runs from images to samples: labels, and channels that are known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import infdiff
from infdiff.data.store import ImageStore
from infdiff.diffusion.conditions import Condition
from infdiff.errors import OptionError
from infdiff.evaluation.real_images import StoredImages
from infdiff.images.convert import to_images
from tests.conftest import TINY, TINY_GRID, assert_one_line_error, command_in, pixels
from tests.runs.conftest import train_latent

QUICK = ["train.learning_rate=1e-2", "train.warmup=0", "train.batch_size=16", "train.checkpoint_every=1000"]
SMALL = [*QUICK, "data.size=8", "train.ema_decay=0.95", "train.validation_images=4", "train.bfloat16=false"]
KINDS = {
    "points": [*TINY, *SMALL, "train.subsample=1", "model.grid_size=8", "diffusion.target=v", "diffusion.sigma=0.3"],
    "grid": [*TINY_GRID, *SMALL, "sample.steps=8", "edm.log_mean=0", "edm.sigma_max=10"],
}
STEPS = {"points": 100, "grid": 150}


def coloured_images(folder):
    """Red images and blue ones in folders of these names, each a little different."""
    random = np.random.default_rng(0)
    for name, colour in (("red", (220, 40, 40)), ("blue", (40, 40, 220))):
        (folder / name).mkdir(parents=True)
        for i in range(16):
            values = np.clip(np.array(colour) + random.normal(0, 12, 3), 0, 255)
            Image.fromarray(np.broadcast_to(values, (8, 8, 3)).astype(np.uint8)).save(folder / name / f"{i:02}.png")


@pytest.fixture(scope="module", params=list(KINDS))
def coloured_run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    command = command_in(folder)
    coloured_images(folder / "images")
    result = command("prepare-data", "images", "--out", "x.lmdb", "--size", 8, "--labels", "folders", "--workers", 1)
    assert result.returncode == 0, result.stderr
    kind, steps = KINDS[request.param], STEPS[request.param]
    result = command("train", "--data", folder / "x.lmdb", "--out", "runs/x", "--steps", steps, *kind)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "x"


def redness(images):
    """Red minus blue of images (N, 3, H, W) uint8, from -1 to 1, each image's."""
    return (images[:, 0].float() - images[:, 2].float()).mean(dim=(1, 2)) / 255


def test_settings_follow_from_the_labels_of_the_store(coloured_run):
    config = (coloured_run / "config.yaml").read_text()
    assert "classes: 2" in config
    assert json.loads((coloured_run / "labels.json").read_text())["classes"] == ["blue", "red"]


def test_samples_are_of_the_class_asked_for(coloured_run):
    model = infdiff.load(coloured_run, device="cpu")
    assert (redness(model.sample(8, label="red", output="tensor")) > 0.35).all()
    assert (redness(model.sample(8, label="blue", output="tensor")) < -0.35).all()
    both = redness(model.sample(6, label="all", guidance=1.5, output="tensor"))
    assert (both[0::2] < -0.35).all()
    assert (both[1::2] > 0.35).all()


def test_guidance_0_is_unconditional_and_1_conditional(coloured_run):
    model = infdiff.load(coloured_run, device="cpu")

    def sample(**given):
        return model.sample(3, 12, seed=4, output="tensor", **given)

    plain, red, blue = sample(), sample(label="red"), sample(label="blue")
    assert torch.equal(sample(label="red", guidance=0), plain)
    assert torch.equal(sample(label="blue", guidance=0), plain)
    assert torch.equal(sample(label="red", guidance=1.0), red)
    assert not torch.equal(red, blue)
    assert not torch.equal(sample(label="red", guidance=3.0), red)


def test_an_exported_run_knows_its_classes(coloured_run, tmp_path):
    model = infdiff.load(coloured_run, device="cpu")
    other = infdiff.load(model.export(tmp_path / "exported"), device="cpu")
    wanted = model.sample(2, label="red", guidance=2.0, output="tensor")
    assert torch.equal(other.sample(2, label="red", guidance=2.0, output="tensor"), wanted)
    with pytest.raises(OptionError, match="blue, red"):
        other.sample(label="green")


def test_the_command_samples_a_class_and_names_what_it_does_not_know(coloured_run, tmp_path):
    command = command_in(tmp_path)
    run = ["--run", coloured_run, "--device", "cpu"]
    result = command("sample", *run, "--label", "red", "--guidance", 2, "--n", 2, "--out", "red")
    assert result.returncode == 0, result.stderr
    image = pixels(tmp_path / "red" / "00001.png")
    assert image[..., 0].mean() > image[..., 2].mean() + 90
    assert_one_line_error(command("sample", *run, "--label", "green"), "--label green", "blue, red")
    assert_one_line_error(command("sample", *run, "--vector", "1,2"), "--vector 1,2", "classes", "label")
    assert_one_line_error(command("sample", *run, "--guidance", 2), "--guidance 2", "goes with label")
    assert_one_line_error(command("sample", *run, "--label", "red", "--guidance", -1), "--guidance -1")
    assert_one_line_error(command("sample", *run, "--condition", "x.npy"), "--condition x.npy", "condition channels")


def test_evaluated_images_have_the_classes_of_the_real_ones(coloured_run, tmp_path):
    command = command_in(tmp_path)
    data = coloured_run.parent.parent / "x.lmdb"
    run = ["--run", coloured_run, "--data", data, "--device", "cpu", "--n", 12, "--res", 12, "--metrics", "frechet"]
    result = command("evaluate", *run, "--conditions", "real", "--weight", 1.5, "--out", "made", "--json", "x.json")
    assert result.returncode == 0, result.stderr
    made = torch.cat([to_images(Image.open(path)) for path in sorted((tmp_path / "made").rglob("0*.png"))])
    real = StoredImages.all_of(ImageStore(data)).spread(12)
    wanted = redness(real.take(range(12), (12, 12)))
    assert len(made) == 12
    assert (redness(made).sign() == wanted.sign()).all()
    assert json.loads((tmp_path / "x.json").read_text())["runs"][0]["weight"] == 1.5


def test_conditions_that_an_evaluation_cannot_have_are_one_line(coloured_run, points_run, tmp_path):
    command = command_in(tmp_path)
    run = ["--run", coloured_run, "--device", "cpu", "--n", 12, "--res", 12]
    for options, parts in (
        (["--weight", 2], ("--weight 2", "--conditions real")),
        (["--conditions", "real", "--weight", -1], ("--weight -1", "0 (unconditional)")),
        (["--conditions", "real", "--latents", "real"], ("--conditions real", "--latents")),
        (["--conditions", "real", "--task", "denoise"], ("--conditions real", "--task generate")),
    ):
        assert_one_line_error(command("evaluate", *run, *options), *parts)
    result = command("evaluate", "--run", points_run, "--n", 12, "--res", 12, "--conditions", "real")
    assert_one_line_error(result, "--conditions real", "without labels")


def test_the_latent_model_draws_latents_of_a_class(coloured_run, tmp_path):
    if "points" not in str(coloured_run):
        pytest.skip("this method has no latents")
    train_latent(coloured_run, 1500, "latent.train.learning_rate=5e-3", "latent.sample_steps=20")
    model = infdiff.load(coloured_run, device="cpu")
    assert "latent diffusion model" in model.trained.describe_latents()
    z = {name: model.trained.encode(of_colour(name)).mean(0) for name in ("red", "blue")}
    generators = [torch.Generator().manual_seed(i) for i in range(12)]
    for number, (name, other) in enumerate((("blue", "red"), ("red", "blue"))):
        drawn = model.trained.latents.sample(generators, 1.0, Condition(torch.eye(2)[[number] * 12]))
        nearer = (drawn - z[name]).norm(dim=1) < (drawn - z[other]).norm(dim=1)
        assert nearer.float().mean() >= 0.9


def of_colour(name):
    colour = torch.tensor({"red": (220, 40, 40), "blue": (40, 40, 220)}[name], dtype=torch.uint8)
    return colour.view(1, 3, 1, 1).expand(1, 3, 8, 8)


def test_a_run_without_labels_refuses_them(points_run, command, tmp_path):
    result = command("sample", "--run", points_run, "--label", "cat", "--device", "cpu")
    assert_one_line_error(result, "--label cat", "without labels")
    Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(tmp_path / "x.png")
    result = command("superres", "--run", points_run, "--input", "x.png", "--res", 12, "--label", "cat")
    assert_one_line_error(result, "--label cat", "without labels")
    result = command("train", "--steps", 2, *TINY, "model.condition.classes=3")
    assert_one_line_error(result, "model.condition", "--labels")


def test_vectors_are_given_in_units_and_of_their_length(tmp_path, command):
    """The brightness of grey images is the number they come with."""
    (tmp_path / "grey").mkdir()
    lines = []
    for i in range(32):
        Image.fromarray(np.full((8, 8, 3), 20 + 6 * i, np.uint8)).save(tmp_path / "grey" / f"{i:02}.png")
        lines.append(f"{i:02}.png,{100 + 10 * i},{(i * 7) % 5}.5\n")
    (tmp_path / "x.csv").write_text("".join(lines))
    command("prepare-data", "grey", "--out", "x.lmdb", "--size", 8, "--labels", "x.csv", "--workers", 1)
    result = command("train", "--data", tmp_path / "x.lmdb", "--out", "runs/x", "--steps", 150, *KINDS["grid"])
    assert result.returncode == 0, result.stderr
    model = infdiff.load(tmp_path / "runs" / "x", device="cpu")
    dark, bright = (model.sample(8, vector=[v, 2.5], output="tensor").float().mean() for v in (130, 380))
    assert dark < 90
    assert bright > 140
    result = command("sample", "--run", "runs/x", "--vector", "1,2,3", "--device", "cpu")
    assert_one_line_error(result, "--vector 1,2,3", "want 2 finite numbers")
    result = command("sample", "--run", "runs/x", "--label", "cat", "--device", "cpu")
    assert_one_line_error(result, "--label cat", "give vector")


def fields_with_a_condition(folder, count=24):
    """Two channels of waves; the second is what the first is made of: minus half of it, and 3."""
    folder.mkdir()
    random = np.random.default_rng(1)
    y, x = (np.mgrid[:16, :16] + 0.5) / 16
    for i in range(count):
        a, b, c = random.normal(0, 1, 3)
        known = a * np.cos(np.pi * x) + b * np.cos(np.pi * y) + c * np.cos(np.pi * x) * np.cos(np.pi * y)
        np.save(folder / f"{i:02}.npy", np.stack([3 - known / 2, known]).astype(np.float32))


DENSE = {
    "points": [*KINDS["points"], "model.z_dim=0", "model.sketch_side=0"],
    "grid": KINDS["grid"],
}


@pytest.fixture(scope="module", params=list(DENSE))
def dense_run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    command = command_in(folder)
    fields_with_a_condition(folder / "fields")
    result = command("prepare-data", "fields", "--out", "x.lmdb", "--size", 16, "--normalise", "meanstd")
    assert result.returncode == 0, result.stderr
    settings = [*DENSE[request.param], "data.condition_channels=1", "--steps", 200]
    result = command("train", "--data", folder / "x.lmdb", "--out", "runs/x", *settings)
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "x"


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_samples_follow_their_condition_at_any_size(dense_run):
    model = infdiff.load(dense_run, device="cpu")
    given = [np.load(path) for path in sorted((dense_run.parent.parent / "fields").glob("*.npy"))[:4]]
    images = model.sample(4, 16, condition=np.stack([field[1:] for field in given]), output="array")
    assert images.shape == (4, 1, 16, 16)
    for image, field in zip(images, given, strict=True):
        assert correlation(image[0], field[0]) > 0.9
    large = model.sample(1, 32, condition=given[0][1], output="array")[0, 0]
    assert correlation(large.reshape(16, 2, 16, 2).mean(axis=(1, 3)), given[0][0]) > 0.9
    free = model.sample(4, 16, output="array")
    assert not np.array_equal(free, images)
    again = model.sample(4, 16, condition=np.stack([field[1:] for field in given]), guidance=0, output="array")
    assert np.array_equal(again, free)


def test_evaluated_fields_have_the_conditions_of_the_real_ones(dense_run, tmp_path):
    command = command_in(tmp_path)
    run = ["--run", dense_run, "--device", "cpu", "--n", 8, "--res", 16, "--split", "all"]
    result = command("evaluate", *run, "--conditions", "real", "--out", "made")
    assert result.returncode == 0, result.stderr
    paths = sorted((tmp_path / "made").rglob("0*.npy"))
    assert len(paths) == 8
    # Of 24 fields every third one; which is which after the split says the best match.
    fields = [np.load(path)[0] for path in sorted((dense_run.parent.parent / "fields").glob("*.npy"))]
    found = [max(range(24), key=lambda i, path=path: correlation(np.load(path)[0], fields[i])) for path in paths]
    assert len(set(found)) == 8
    assert all(correlation(np.load(path)[0], fields[i]) > 0.9 for path, i in zip(paths, found, strict=True))
    free = command("evaluate", *run, "--out", "free")
    assert free.returncode == 0, free.stderr


def test_a_condition_comes_from_a_file_with_or_without_holes(dense_run, tmp_path):
    command = command_in(tmp_path)
    known = np.load(next((dense_run.parent.parent / "fields").glob("*.npy")))[1]
    np.save(tmp_path / "known.npy", known)
    run = ["--run", dense_run, "--res", 16, "--device", "cpu"]
    result = command("sample", *run, "--condition", "known.npy", "--n", 2, "--out", "out")
    assert result.returncode == 0, result.stderr
    wanted = infdiff.load(dense_run, device="cpu").sample(2, 16, condition=known, output="array")
    np.testing.assert_allclose(np.load(tmp_path / "out" / "00001.npy"), wanted[1], rtol=1e-5, atol=1e-6)
    known[:4] = np.nan
    np.save(tmp_path / "holes.npy", known)
    result = command("sample", *run, "--condition", "holes.npy", "--out", "holes")
    assert result.returncode == 0, result.stderr
    assert "64 pixels are missing" in result.stdout
    assert np.isfinite(np.load(tmp_path / "holes" / "00000.npy")).all()


def test_conditions_that_do_not_fit_are_one_line(dense_run, tmp_path):
    command = command_in(tmp_path)
    run = ["--run", dense_run, "--device", "cpu"]
    np.save(tmp_path / "two.npy", np.zeros((2, 16, 16), np.float32))
    assert_one_line_error(command("sample", *run, "--condition", "two.npy"), "--condition two.npy", "2 channels")
    assert_one_line_error(command("sample", *run, "--condition", "none.npy"), "--condition none.npy", "no such file")
    np.save(tmp_path / "one.npy", np.zeros((1, 16, 16), np.float32))
    wide = command("sample", *run, "--condition", "one.npy", "--res", "8x16", "--aspect", "keep")
    assert_one_line_error(wide, "--aspect keep", "condition")


def test_an_exported_run_follows_conditions(dense_run, tmp_path):
    model = infdiff.load(dense_run, device="cpu")
    known = np.load(next((dense_run.parent.parent / "fields").glob("*.npy")))[1]
    other = infdiff.load(model.export(tmp_path / "exported"), device="cpu")
    wanted = model.sample(1, 16, condition=known, output="array")
    assert np.array_equal(other.sample(1, 16, condition=known, output="array"), wanted)


def test_condition_channels_that_a_store_cannot_have_are_refused(photos, tmp_path, command):
    fields_with_a_condition(tmp_path / "fields", 6)
    command("prepare-data", "fields", "--out", "x.lmdb", "--size", 16)
    result = command("train", "--data", "x.lmdb", "--steps", 2, *KINDS["grid"], "data.condition_channels=2")
    assert_one_line_error(result, "data.condition_channels: 2", "2 channels")
    result = command("train", "--steps", 2, *KINDS["grid"], "data.condition_channels=1")
    assert_one_line_error(result, "data.condition_channels: 1", "--normalise")


def in_tiles(run, **given):
    """A guided sample with its pixels all at once, and in tiles."""
    model = infdiff.load(run, device="cpu")
    return [model.sample(1, 16, output="tensor", guidance=1.5, tile=tile, **given).double() for tile in ("off", 5)]


def test_tiles_take_labels_as_all_pixels_do(coloured_run):
    if "points" not in str(coloured_run):
        pytest.skip("this method has no tiles")
    whole, tiled = in_tiles(coloured_run, label="red")
    torch.testing.assert_close(tiled, whole, atol=1.01, rtol=0)  # uint8, rounded


def test_tiles_take_known_channels_as_all_pixels_do(dense_run):
    if "points" not in str(dense_run):
        pytest.skip("this method has no tiles")
    whole, tiled = in_tiles(dense_run, condition=np.ones((16, 16)))
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=0)


def top_half(side):
    """A mask of images of a side: rows of the upper half are to be filled."""
    hidden = np.zeros((side, side), bool)
    hidden[: side // 2] = True
    return hidden


RESTORED = {
    "windows": lambda model, **given: model.super_resolve(grey(), 20, method="windows", **given),
    "guided": lambda model, **given: model.super_resolve(grey(), 12, method="guided", **given),
    "by gradient": lambda model, **given: model.super_resolve(
        grey(), 12, method="guided", guidance="gradient", **given
    ),
    "encode": lambda model, **given: model.super_resolve(grey(), 12, method="encode", **given),
    "filled": lambda model, **given: model.inpaint(grey(), top_half(8), **given),
    "filled by projection": lambda model, **given: model.inpaint(grey(), top_half(8), guidance="projection", **given),
    "filled in windows": lambda model, **given: model.inpaint(grey(20), top_half(20), method="windows", **given),
    "filled everywhere": lambda model, **given: model.inpaint(grey(), np.ones((8, 8), bool), **given),
    "restored": lambda model, **given: model.restore(grey()[..., :4] / 255, lambda x: x[..., :4], 8, **given),
}


# The latents of these are drawn, not read off the input: they, too, are of the label.
DRAWN = ("filled everywhere", "restored")


def grey(side=8):
    return torch.full((1, 3, side, side), 128, dtype=torch.uint8)


@pytest.mark.parametrize("way", RESTORED)
def test_restored_images_are_of_the_class_asked_for(coloured_run, way):
    if "points" not in str(coloured_run):
        pytest.skip("this method restores nothing")
    model = infdiff.load(coloured_run, device="cpu")

    def made(**given):
        return RESTORED[way](model, steps=3, output="tensor", **given)

    plain, red, blue = made(), made(label="red"), made(label="blue")
    assert torch.equal(made(label="red", condition_weight=0), plain)
    assert torch.equal(made(label="red", condition_weight=1), red)
    redder = made(label="red", condition_weight=3)
    assert all(not torch.equal(red, other) for other in (plain, blue, redder))
    if way in DRAWN:
        assert redness(red) > 0.3 > -0.3 > redness(blue)


def test_variants_are_of_one_class_after_the_other(coloured_run):
    if "points" not in str(coloured_run):
        pytest.skip("this method restores nothing")
    model = infdiff.load(coloured_run, device="cpu")
    given = {"steps": 2, "output": "tensor", "n": 2}
    hidden, operator = top_half(8), lambda x: x[..., :4]
    for both, red in (
        [model.inpaint(grey(), hidden, label=label, **given) for label in ("all", "red")],
        [model.restore(operator(grey()) / 255, operator, 8, label=label, **given) for label in ("all", "red")],
    ):
        assert not torch.equal(both[0], red[0])  # blue is the first
        assert torch.equal(both[1], red[1])


def test_restoring_commands_take_labels_and_name_what_they_do_not_know(coloured_run, tmp_path):
    if "points" not in str(coloured_run):
        pytest.skip("this method restores nothing")
    command = command_in(tmp_path)
    Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(255 * top_half(8).astype(np.uint8)).save(tmp_path / "mask.png")
    run = ["--run", coloured_run, "--device", "cpu", "--input", "x.png", "--steps", 3]
    model, red = infdiff.load(coloured_run, device="cpu"), {"label": "red", "condition_weight": 2, "steps": 3}
    for call, wanted in (
        (["superres", *run, "--res", 20], model.super_resolve(grey(), 20, output="tensor", **red)),
        (["inpaint", *run, "--mask", "mask.png"], model.inpaint(grey(), top_half(8), output="tensor", **red)),
    ):
        out = tmp_path / ("x-20.png" if call[0] == "superres" else "x-filled/00000.png")
        result = command(*call, "--label", "red", "--condition-weight", 2)
        assert result.returncode == 0, result.stderr
        assert np.array_equal(pixels(out), wanted[0].permute(1, 2, 0).numpy())
        record = json.loads(
            (out.with_suffix(".json") if call[0] == "superres" else out.parent / "samples.json").read_text()
        )
        assert (record["label"], record["condition_weight"]) == ("red", "2.0")
        for wrong, parts in (
            (["--label", "green"], ("--label green", "blue, red")),
            (["--vector", "1,2"], ("--vector 1,2", "give label")),
            (["--condition-weight", 2], ("--condition-weight 2", "goes with label")),
            (["--label", "red", "--condition-weight", -1], ("--condition-weight -1", "unconditional")),
            (["--condition", "x.npy"], ("--condition x.npy", "condition channels")),
        ):
            assert_one_line_error(command(*call, *wrong), *parts)


def test_enlarging_and_filling_do_without_labels(coloured_run):
    if "points" not in str(coloured_run):
        pytest.skip("this method has no latents")
    model = infdiff.load(coloured_run, device="cpu")
    assert model.super_resolve(of_colour("red"), 16, steps=2, output="tensor").shape == (1, 3, 16, 16)
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    assert model.inpaint(of_colour("red"), mask, steps=2, output="tensor").shape == (1, 3, 8, 8)


def test_tiles_restore_conditionally_as_all_pixels_do(coloured_run):
    if "points" not in str(coloured_run):
        pytest.skip("this method has no tiles")
    model, given = infdiff.load(coloured_run, device="cpu"), {"label": "red", "condition_weight": 1.5, "steps": 2}
    projected = {"guidance": "projection", "output": "tensor"} | given
    whole, tiled = (
        model.inpaint(grey(16), top_half(16), method="guided", tile=tile, **projected).double() for tile in ("off", 5)
    )
    torch.testing.assert_close(tiled, whole, atol=1.01, rtol=0)  # uint8, rounded


def test_fillings_follow_known_channels_in_tiles_and_without(dense_run):
    if "points" not in str(dense_run):
        pytest.skip("this method fills nothing")
    model = infdiff.load(dense_run, device="cpu")
    truth, known = np.load(next((dense_run.parent.parent / "fields").glob("*.npy")))
    given = truth[None].copy()
    given[:, :, 4:] = np.nan
    follow = {"condition": known, "steps": 10, "output": "array", "method": "guided", "guidance": "projection"}
    whole, tiled = (model.inpaint(given, None, tile=tile, **follow)[0, 0] for tile in ("off", 5))
    assert correlation(whole[:, 4:], truth[:, 4:]) > 0.9
    np.testing.assert_allclose(tiled, whole, atol=1e-3)
    by_gradient = model.inpaint(given, None, **follow | {"guidance": "gradient"})[0, 0]
    assert correlation(by_gradient[:, 4:], truth[:, 4:]) > 0.9


def test_each_measurement_has_its_known_channels(dense_run):
    if "points" not in str(dense_run):
        pytest.skip("this method restores nothing")
    model = infdiff.load(dense_run, device="cpu")
    fields = [np.load(path) for path in sorted((dense_run.parent.parent / "fields").glob("*.npy"))[:2]]
    truth, known = (np.stack([field[[i]] for field in fields]) for i in (0, 1))
    made = model.restore(truth[..., :2], lambda x: x[..., :2], 16, n=2, condition=known, steps=8, output="array")
    for result, field in zip(made[:, 0], truth.repeat(2, axis=0)[:, 0], strict=True):
        assert correlation(result, field) > 0.8


def test_enlarged_fields_have_known_channels_at_every_size(tmp_path):
    command = command_in(tmp_path)
    fields_with_a_condition(tmp_path / "fields", 4)
    command("prepare-data", "fields", "--out", "x.lmdb", "--size", 16, "--normalise", "meanstd")
    settings = [*KINDS["points"], "data.condition_channels=1", "--steps", 2]
    result = command("train", "--data", "x.lmdb", "--out", "runs/x", *settings)
    assert result.returncode == 0, result.stderr
    truth, known = np.load(tmp_path / "fields" / "00.npy")
    np.save(tmp_path / "small.npy", truth[None, ::2, ::2])
    np.save(tmp_path / "known.npy", known)
    run = ["--run", "runs/x", "--input", "small.npy", "--res", 20, "--steps", 2, "--device", "cpu"]
    for method in ("windows", "guided", "encode"):
        made = []
        for name, given in (("plain", []), ("given", ["--condition", "known.npy"])):
            result = command("superres", *run, "--method", method, *given, "--out", f"{name}.npy")
            assert result.returncode == 0, result.stderr
            made.append(np.load(tmp_path / f"{name}.npy"))
        assert made[0].shape == (1, 20, 20)
        assert not np.allclose(made[0], made[1])


def test_filling_does_without_known_channels(dense_run):
    if "points" not in str(dense_run):
        pytest.skip("this method fills nothing")
    field = np.full((1, 8, 8), 3.0, np.float32)
    field[:, :2] = np.nan
    filled = infdiff.load(dense_run, device="cpu").inpaint(field, None, steps=2, output="array")
    assert np.isfinite(filled).all()


def test_training_on_labels_goes_on_bit_for_bit_with_every_cache(coloured_run, tmp_path):
    if "grid" not in str(coloured_run):
        pytest.skip("once is enough")
    command, data = command_in(tmp_path), coloured_run.parent.parent / "x.lmdb"
    settings = [*KINDS["grid"], "train.checkpoint_every=3", "train.decay_from=1", "data.flip=true"]
    for folder, steps, cache in (("parts", 3, "ram"), ("parts", 6, "none"), ("whole", 6, "ram")):
        workers = ["data.workers=0", f"data.cache={cache}"]
        result = command("train", "--data", data, "--out", folder, "--steps", steps, *settings, *workers)
        assert result.returncode == 0, result.stderr
    a, b = (infdiff.load(tmp_path / name, device="cpu") for name in ("parts", "whole"))
    assert torch.equal(a.sample(2, label="all", output="tensor"), b.sample(2, label="all", output="tensor"))
