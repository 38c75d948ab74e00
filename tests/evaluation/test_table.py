"""The text table of results."""

from infdiff.evaluation import table


def test_the_table_has_columns_for_what_there_is():
    rows = [
        {"what": "images", "size": "64", "at": "64", "images": 9, "frechet": 12.3456, "broken": [3, 4]},
        {"what": "images", "size": "128", "at": "96", "images": 9, "kid": float("nan")},
    ]
    lines = table.as_text(rows, ["few images: " + "so very few " * 20]).splitlines()
    assert lines[0].split() == ["size", "at", "images", "broken", "frechet", "kid"]
    assert lines[1].split() == ["64", "64", "9", "2", "12.35"]
    assert lines[2].split() == ["128", "96", "9", "nan"]
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("warning: few images") for line in lines)
