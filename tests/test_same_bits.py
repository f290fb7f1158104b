"""The same bits whatever compiles them: another libm, another processor, no optimisation.

libm chooses its functions by the processor, and compilers may contract a·b + c. The library's own functions leave
neither any choice, so that draws, and paths of formulas without libm, are the same bits everywhere.
"""

import json
import os
import pathlib
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("same bits")  # one worker compiles what all variants are compared with

SRC = pathlib.Path(__file__).parents[1] / "src"

PROGRAM = """
import hashlib, json, math
import numpy as np
import sdesim as sde
from sdesim.core import bits, draws, stream
from numba import njit
from sdesim.core.elementary import U64
from sdesim.core.philox import tile_words
from sdesim.core.draws import gamma, noncentral_chi_square, poisson, spot_of

@njit
def drawn(out):
    for i in range(out.shape[1]):
        spot = spot_of(3, 0, i, U64(9))
        out[0, i], draw = gamma(0.4 + i, spot, U64(0))
        out[1, i], draw = poisson(3.0 + i, spot, draw)
        out[2, i], draw = noncentral_chi_square(0.7, 2.0, 0.5, spot, draw)

found = {}
def keep(name, *arrays):
    found[name] = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

for dtype in (np.float32, np.float64):
    kind = np.dtype(dtype).name
    keep(f"normals {kind}", *[stream.normals(7, p, 50_000, 1, 4, dtype=dtype) for p in range(8)])
    by_step = np.empty((2 if dtype == np.float64 else 4, 3000, 3), dtype)
    stream.fill_steps(by_step, 5, 3, stream.KNOWN, 7)
    keep(f"normals by step {kind}", by_step)
    run = dict(n_steps=20, n_paths=600, seed=3, dtype=dtype)
    keep(f"Ornstein-Uhlenbeck {kind}", sde.simulate(sde.OrnsteinUhlenbeck(1.3, 0.2, 0.7), 0.3, (0, 1), **run).final)
waves = sde.ito(lambda x, t: np.sin(t) - np.tanh(x), lambda x, t: np.exp(-x * x))
keep("elementary functions", sde.simulate(waves, 0.3, (0, 1), **run).final)
keep("uniforms", stream.uniforms(7, stream.ACCEPTANCE, 3000, 2, 4))
out, words = np.empty((4, 256)), np.zeros((4, 128), np.uint64)
tile_words(words, U64(1), U64(2), U64(256), U64(3))
bits.signs64(out[0], words, 77, 0.1)
bits.uniforms(out[1], words, 1)
bits.digits(out[2], words, 0, 0.1)
keep("bits", out[:3])
drawn(rejected := np.empty((3, 2000)))
keep("gamma, Poisson, chi-square", rejected)
keep("libm", np.array([math.exp(x) * math.sin(40 * x) * math.log1p(x) for x in np.linspace(0.01, 3, 20_000)]))
print(json.dumps(found))
"""

VARIANTS = {
    "libm without fma": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX2_Usable,-FMA_Usable"},
    "generic processor": {"NUMBA_CPU_NAME": "generic"},
    "no optimisation": {"NUMBA_OPT": "0"},
}


def digests(folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(SRC), "SDESIM_CACHE_DIR": str(folder), **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def plain(folder):
    return digests(folder)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_another_compilation_gives_the_same_bits(plain, folder, tmp_path, variant):
    # code that was compiled already calls what libm it finds; the two others are compiled anew
    found = digests(folder if "libm" in variant else tmp_path, **VARIANTS[variant])
    libm, usual = found.pop("libm"), {name: digest for name, digest in plain.items() if name != "libm"}
    assert found == usual
    assert len(usual) == 10
    if variant == "libm without fma" and platform.libc_ver()[0] == "glibc" and platform.machine() == "x86_64":
        # the control: what is made of libm's own functions does depend on it
        assert libm != plain["libm"]
