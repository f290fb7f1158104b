"""What the tests of the cache of compiled code share: a cold folder, and kernels as a new process would get them."""

import contextlib
import os
import pathlib
import subprocess
import sys
import warnings

from sdesim.core import cache, compile

SRC = pathlib.Path(__file__).parents[1] / "src"
TEXT = """\
from numba import njit, types

@njit(types.float64(types.float64), cache=CACHE)
def kernel(x):
    return _formula(x)
"""


def load(function):
    """The kernel of a formula as a new process would get it: from the folder, or compiled."""
    cache._modules.clear()
    return cache.load(TEXT, {"_formula": compile.formula(function)}).kernel


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def line(slope=0.5):
    return lambda x: slope * x + 1.0


def files(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@contextlib.contextmanager
def exactly_one_warning(match):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [w.category for w in caught] == [RuntimeWarning], [str(w.message) for w in caught]
    assert match in str(caught[0].message)
    assert "SDESIM_CACHE_DIR" in str(caught[0].message)


SCRIPT = """
import sys, warnings
warnings.simplefilter("error")
from sdesim.core import cache, compile
TEXT = sys.argv[1]
SLOPE = float(sys.argv[2])
def helper(x): return SLOPE * x
def other_helper(x): return helper(x) + 1.0
kernel = cache.load(TEXT, {"_formula": compile.formula(lambda x: other_helper(x))}).kernel
print(kernel(2.0), sum(kernel.stats.cache_hits.values()), "sdesim" in cache.__file__)
"""


def started(folder, slope, source=SRC):
    environment = {**os.environ, "PYTHONPATH": str(source), "SDESIM_CACHE_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, TEXT, str(slope)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process):
    out, errors = process.communicate(timeout=60)
    assert not errors, errors
    value, hit, _ = out.split()
    return float(value), int(hit)
