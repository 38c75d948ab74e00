"""Text tables."""

from infdiff.tables import text_table


def test_texts_stand_left_and_numbers_right_below_their_names():
    rows = [{"what": "generated", "n": "5", "fid": "12.25"}, {"what": "real", "n": "10000", "fid": "3"}]
    assert text_table(rows).splitlines() == [
        "what           n    fid",
        "generated      5  12.25",
        "real       10000      3",
    ]


def test_columns_without_text_are_left_out():
    assert text_table([{"a": "1", "b": "", "c": "2"}, {"a": "", "b": ""}]) == "a  c\n1  2\n"


def test_rows_may_lack_columns_and_none_makes_no_table():
    assert text_table([{"a": "1"}, {"b": "22"}]).splitlines() == ["a   b", "1", "   22"]
    assert text_table([]) == ""
