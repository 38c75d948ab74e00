"""Docstrings and comments follow the English rule of CONTRIBUTING.md, as far as a machine can tell."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A first line that opens with one of these cannot be read without the name above it.
OPENERS = re.compile(
    r"(Of|From|As|To|What|How|Which|Where|Whether|Whose|When|If|In|With|For|By|Here|That|At|On|Over)\b"
)
# Native readers stop at these.
AVOIDED = re.compile(
    r"\b(anew|hand(?:ed|s)? over|pass(?:ed|es)? over|held against|brought to|for people|plain values"
    r"|(?:is|are) told of|so many|at work|in all|takes? none|what (?:it|they) makes? of"
    r"|look(?:s|ed)? at|gives?|beside|whole(?! numbers?))\b",
    re.IGNORECASE,
)


def docstrings(source):
    """(line, text) of every docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def comments(source):
    """(line, text) of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def faults(source):
    """(line, words) of everything that breaks the rule."""
    found = [(line, text.splitlines()[0]) for line, text in docstrings(source) if OPENERS.match(text)]
    prose = [*docstrings(source), *comments(source)]
    return found + [(line, match[0]) for line, text in prose for match in AVOIDED.finditer(text)]


@pytest.mark.parametrize("folder", ["infdiff", "scripts", "examples"])
def test_docstrings_and_comments_follow_the_rule(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [(str(f.relative_to(ROOT)), *fault) for f in files for fault in faults(f.read_text())] == []


@pytest.mark.parametrize(
    "source", ['"""Of a run: its folder."""', 'def f():\n    """What a step costs."""', "x = 1  # made anew"]
)
def test_a_fault_would_be_found(source):
    assert len(faults(source)) == 1
