"""The architecture: imports point downwards, and importing the library is cheap and compiles nothing."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

SRC = pathlib.Path(__file__).parents[1] / "src"
PACKAGE = SRC / "sdesim"
TOP = 9
FLOORS = {
    "core": 0, "errors": 0,
    "integrate": 1, "fokker_planck": 1, "cuda": 1,
    "processes": 2, "targets": 2,
    "simulate": 3, "preparation": 3, "provenance": 3, "execution": 3, "keeping": 3, "expect": 3, "level_sums": 3,
    "compare": 3, "bind": 3,
    "density": 3, "evolution": 3, "on_grid": 3, "starts": 3, "resolution": 3, "domain": 3, "adapted": 3,
    "arrival": 3, "passage": 3, "backward": 3, "grid_function": 3, "spectrum": 3, "entropy": 3,
    "score": 4, "generate": 4,
}  # fmt: skip
# Numerics never see a model, and models know no numerics.
STRANGERS = [{"integrate", "fokker_planck", "cuda"}, {"processes", "targets"}]


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(dotted):
    """The part of the package (its first name below sdesim) that a dotted name is in."""
    names = dotted.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports(path):
    """Every sdesim module that a file imports, also inside functions, as dotted names."""
    package = ["sdesim", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sdesim")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            if stem == "sdesim":
                yield from (f"sdesim.{alias.name}" for alias in node.names)
            elif stem.startswith("sdesim."):
                yield stem


def violations(path):
    own = part_of(".".join(["sdesim", *path.relative_to(PACKAGE).with_suffix("").parts]))
    floor = FLOORS.get(own, TOP)
    for name in imports(path):
        other = part_of(name)
        height = FLOORS.get(other, TOP)
        apart = any(own in a and other in b for a in STRANGERS for b in STRANGERS if a is not b)
        if height > floor or apart:
            yield f"{path.relative_to(SRC)} ({own}, floor {floor}) imports {name} (floor {height})"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    assert not list(violations(path))


def test_a_wrong_import_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "sdesim")
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    cases = {
        "core/a.py": ("from ..processes.base import Process", True),
        "core/b.py": ("from . import checks\nimport numpy", False),
        "integrate/c.py": ("def f():\n    from ..targets import Gaussian", True),
        "integrate/schemes/d.py": ("from ...core.elementary import fma", False),
        "integrate/schemes/e.py": ("from ...simulate import simulate", True),
        "processes/f.py": ("import sdesim.integrate.tiles", True),
        "processes/g.py": ("from ..core import checks\nfrom ..targets.gaussian import Gaussian", False),
        "simulate.py": ("from . import bind\nfrom .processes.base import Process", False),
        "density.py": ("from . import plot", True),
        "plot.py": ("from . import density", False),
    }
    for name, (text, wrong) in cases.items():
        file = tmp_path / "sdesim" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        assert bool(list(violations(file))) == wrong, name


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


HEAVY = ["scipy.stats", "scipy.integrate", "matplotlib.pyplot", "matplotlib", "numba.cuda", "dask", "tqdm", "torch",
         "xarray", "zarr"]  # fmt: skip


def test_importing_is_cheap_and_compiles_nothing(tmp_path):
    code = f"import sdesim, sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    home = tmp_path / "cache"
    assert run(code, SDESIM_CACHE_DIR=str(home)) == []
    assert not home.exists()


def test_every_public_name_is_there():
    import sdesim as sde

    for name in ("simulate", "evolve_density", "compare", "Grid", "Histogram", "Moments", "ito", "methods"):
        assert hasattr(sde, name)
    assert all(not name.startswith("_") or name == "__version__" for name in getattr(sde, "__all__", []))
