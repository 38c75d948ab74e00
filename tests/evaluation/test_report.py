"""The report: every section, well-formed HTML, nothing from elsewhere, and a sentence where nothing is to be shown."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from infdiff.errors import UserError
from infdiff.evaluation.examples import Curves, ExampleSheet, NearestMatches
from infdiff.evaluation.report import ReportSubject, as_html, save_report

SECTIONS = ["scores", "quality", "spectra", "losses", "samples", "neighbours", "cost", "configuration", "command"]
VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Checks that what opens is closed, and keeps sections, tables, images, and every reference."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.images, self.references, self.ids = [], {}, [], [], []
        self.rows, self.scripts = {}, 0
        self.section = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = attributes["id"]
            self.sections[self.section] = ""
            self.rows[self.section] = []
        if tag == "tr":
            self.rows[self.section].append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag == "img":
            self.images.append((self.section, attributes["src"]))
            assert attributes["alt"]
        self.scripts += tag == "script"
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [value for key, value in attributes.items() if key in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        if self.section is not None:
            self.sections[self.section] += data
            if self.open[-1] in ("td", "th") or (self.open[-1] == "span" and "td" in self.open):
                self.rows[self.section][-1][-1] += data


def picture(side, seed=0):
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def decoded(uri):
    kind, _, data = uri.partition(",")
    assert kind == "data:image/png;base64"
    return torch.tensor(list(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").tobytes()))


def subject(name="runs/a", sizes=("32", "64"), better=0.0):
    rows = [
        {"what": "generated", "size": size, "at": "32", "images": 9, "broken": [3], "frechet": 20.0 - better}
        | {"precision": 0.5, "seconds_per_image": 1.25, "peak_mb": 321.0, "made_on": "a device"}
        for size in sizes
    ]
    others = torch.stack([picture(32, n) for n in (1, 2, 3)])
    matches = NearestMatches(picture(32), others, torch.tensor([4.5, 5.0, 6.0]))
    examples = [
        ExampleSheet(
            "generated",
            size,
            picture(70),
            (),
            (matches, matches),
            (Curves.of_spectra(size, torch.rand(15) + 1, torch.rand(15) + 2),),
        )
        for size in sizes
    ]
    log = [{"step": n, "loss": 1 / n} for n in range(1, 9)] + [{"step": 8, "validation_loss": 0.3}]
    facts = {"step": 8, "parameters of the denoiser": "1,234,567"}
    return ReportSubject(name, rows, examples, ["few images: too few"], facts, ("64",), "seed: 7 # <of all>\n", log)


def test_every_section_is_there_and_nothing_comes_from_elsewhere(tmp_path):
    path = tmp_path / "r.html"
    save_report(path, [subject()], "python evaluate.py --run runs/a", {"torch": "2.13", "metrics": ["frechet"]})
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    text = path.read_text()
    page = Page(text)
    assert list(page.sections) == SECTIONS
    assert page.scripts == 0
    assert all(r.startswith(("#", "data:image/png;base64,")) for r in page.references)
    assert not re.search(r"url\((?!#)|@import", text)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
    assert "prefers-color-scheme: dark" in text
    assert "#010203" not in text  # all ink is the page's
    for section, parts in {
        "scores": ["frechet", "Fréchet distance of features", "few images: too few"],
        "losses": ["training loss", "validation loss"],
        "cost": ["1.25", "321", "a device"],
        "configuration": ["1,234,567", "seed: 7 # <of all>"],
        "command": ["python evaluate.py --run runs/a", "2.13", "frechet"],
    }.items():
        for part in parts:
            assert part in page.sections[section], (section, part)
    assert text.count("<svg") == 3


def test_sizes_are_in_order_and_that_of_the_training_is_marked():
    page = Page(as_html([subject(sizes=("64", "128", "32"))], "", {}))
    assert [row[0] for row in page.rows["scores"]] == ["size", "32", "64training size", "128"]
    assert [row[0] for row in page.rows["cost"]] == ["size", "32", "64training size", "128"]
    heads, first = page.rows["scores"][:2]
    assert dict(zip(heads, first, strict=True)) == {
        "size": "32",
        "compared at": "32",
        "images": "9",
        "not finite": "1",
        "frechet": "20",
        "precision": "0.5",
    }


def test_pictures_are_the_ones_given():
    page = Page(as_html([subject(sizes=("32",))], "", {}))
    shown = [(section, decoded(src)) for section, src in page.images]
    assert [section for section, _ in shown] == ["samples", *["neighbours"] * 8]
    expected = [picture(70), *[picture(32, n) for n in (0, 1, 2, 3)] * 2]
    for (_, found), image in zip(shown, expected, strict=True):
        assert torch.equal(found, image.permute(1, 2, 0).flatten().long())
    assert "4.5" in page.sections["neighbours"]


def test_runs_are_side_by_side_and_the_better_one_is_marked():
    text = as_html([subject("runs/a"), subject("runs/b", better=5.0)], "", {})
    page = Page(text)
    assert [row[:2] for row in page.rows["scores"][1:]] == [
        ["32", "runs/a"],
        ["32", "runs/b"],
        ["64training size", "runs/a"],
        ["64training size", "runs/b"],
    ]
    assert re.findall(r'<td class="best">([^<]*)</td>', text) == ["15", "15"]  # equal precision is nobody's
    for section in ("quality", "spectra", "losses"):
        assert {"runs/a", "runs/b"} <= set(page.sections[section].split())


def test_channels_are_not_compared_with_each_other():
    def rows(*values):
        return [
            {"what": c, "channel": c, "size": "32", "at": "32", "images": 9, "wasserstein": value}
            for c, value in zip("uv", values, strict=True)
        ]

    text = as_html([ReportSubject("a", rows(1, 40)), ReportSubject("b", rows(2, 30))], "", {})
    assert re.findall(r'<td class="best">([^<]*)</td>', text) == ["1", "30"]


def test_curves_of_fields_have_a_panel_for_each_channel():
    curves = tuple(
        Curves(kind, f"{channel}, 32", (1, 2, 4), torch.rand(3), torch.rand(3))
        for channel in ("height", "pressure")
        for kind in ("spectrum", "variogram")
    )
    page = Page(as_html([ReportSubject("a", [], [ExampleSheet("generated", "32", curves=curves)])], "", {}))
    assert {"height,", "pressure,", "Variograms", "distance"} <= set(page.sections["spectra"].split())


def test_a_caveat_of_all_is_said_once_and_one_of_some_names_them():
    one = dataclasses.replace(subject("runs/a"), warnings=["few images: too few", "broken: 1 of 9"])
    scores = Page(as_html([one, subject("runs/b")], "", {})).sections["scores"]
    assert scores.count("few images: too few") == 1
    assert "runs/a, runs/b: few" not in scores
    assert "runs/a: broken: 1 of 9" in scores


def test_a_title_stands_for_the_names():
    assert "<h1>A table</h1>" in as_html([subject("runs/a"), subject("runs/b")], "", {}, "A table")
    assert "<h1>runs/a · runs/b</h1>" in as_html([subject("runs/a"), subject("runs/b")], "", {})


def test_where_there_is_nothing_it_says_so():
    broken = [{"what": "generated", "size": "32", "at": "32", "images": 0, "broken": [0, 1, 2]}]
    page = Page(as_html([ReportSubject("runs/a", broken, warnings=["broken: 3 of 3"])], "", {}))
    assert list(page.sections) == SECTIONS
    assert page.images == []
    assert "broken: 3 of 3" in page.sections["scores"]
    assert "No set of images could be compared." in page.sections["quality"]
    assert "No image is finite" in page.sections["samples"]
    assert "not measured" in page.sections["cost"]


def test_a_number_that_is_not_finite_is_no_point_of_a_plot():
    rows = [
        {"what": "x", "size": size, "at": size, "images": 9, "kid": kid}
        for size, kid in (("32", 0.5), ("64", float("nan")))
    ]
    page = Page(as_html([ReportSubject("a", rows)], "", {}))
    assert "nan" in page.sections["scores"]
    assert "64" not in page.sections["quality"].split()


def test_names_are_text_not_markup():
    rows = [{"what": "x", "size": "32", "at": "32", "images": 9}]
    text = as_html([ReportSubject("<b>&", rows)], "a <i>", {"x": "<u>"})
    assert "&lt;b&gt;&amp;" in text
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<u>" not in text


@pytest.mark.parametrize("name", ["$x^$", r"$\\frac", "a\udcff", "</svg><b>", "_hidden"])
def test_no_name_of_a_run_breaks_a_plot(name, tmp_path):
    """Formulas of Matplotlib, names that are no UTF-8, markup."""
    save_report(tmp_path / "r.html", [subject(name), subject("b")], "", {})
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count("<svg") == text.count("</svg>") == 3
    assert "<b>" not in text


def test_without_jinja_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(UserError, match=r"infdiff\[eval\]"):
        as_html([subject()], "", {})
