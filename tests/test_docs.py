"""The table of methods in the documentation is the table that the library has."""

import math
import pathlib

import sdesim as sde

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "methods.md"


def order(value):
    return "exact" if math.isinf(value) else "–" if value == 0 else f"{value:g}"


def elsewhere(orders):
    """What is different for other noise: "additive 1/1" is strong order 1 and weak order 1 there."""
    return ", ".join(f"{kind} {strong:g}/{weak:g}" for kind, (strong, weak) in orders.items())


def table():
    lines = ["| method | strong | weak | and for | noise | calculus | source |", "|---|---|---|---|---|---|---|"]
    for row in sde.methods():
        cells = (
            f"`{row['name']}`", order(row["strong_order"]), order(row["weak_order"]),
            elsewhere(row["orders"]), ", ".join(row["noise"]),
            {"ito": "Itô", "stratonovich": "Stratonovich"}[row["calculus"]], row["reference"],
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def test_the_table_of_methods_is_up_to_date():
    page = PAGE.read_text(encoding="utf-8")
    assert page.split("<!-- methods -->\n")[1].split("\n<!-- end -->")[0] == table()
