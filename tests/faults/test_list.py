"""The list of faults is whole: each has its tests here, and its row in the documentation."""

import pathlib
import re

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"
NUMBERS = set(range(1, 25))


def named(text):
    """The numbers in "F1", "F6, F7", "F16 to F19" and "F12–F14"."""
    found = {int(n) for n in re.findall(r"\bF(\d+)\b", text)}
    for first, last in re.findall(r"\bF(\d+)(?: to |–)F(\d+)", text):
        found |= set(range(int(first), int(last) + 1))
    return found & NUMBERS


def test_every_fault_has_its_tests():
    texts = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py") if path != pathlib.Path(__file__)]
    assert set.union(*map(named, texts)) == NUMBERS


def test_every_fault_has_its_row():
    rows = [line.split("|")[1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| F")]
    assert set.union(*map(named, rows)) == NUMBERS
    assert sum(len(named(row)) for row in rows) == 24
