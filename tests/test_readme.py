"""The README's code runs, as one session."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 3
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert scope["sde"].compare(scope["again"], scope["data"]).within_noise


def test_the_two_commands_are_there():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv")]
    assert [("sdesim demo" in c, "pytest" in c) for c in commands] == [(True, False), (False, True)]
