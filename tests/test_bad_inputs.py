"""Bad inputs: each is refused by type and message, at once, and before anything compiles."""

import time

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import cache
from sdesim.errors import MemoryLimitError

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.5)
ROTATION = sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: (1.0, 1.0), dim=2)
MIXED = sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: ((1.0, 0.2), (x[0], 1.0)), dim=2, noise="general")


def simulated(process=OU, x0=0.0, t_span=(0.0, 1.0), *, n_steps=10, n_paths=5, **more):
    return lambda: sde.simulate(process, x0, t_span, n_steps=n_steps, n_paths=n_paths, **more)


def from_functions(drift, diffusion=lambda x, t: 1.0, x0=0.0, **more):
    return lambda: simulated(sde.ito(drift, diffusion, **more), x0)()


def still(x, t):
    return 0.0 * x


CASES = {
    # ---- parameters of a process ----
    "sigma negative": (
        lambda: sde.OrnsteinUhlenbeck(1.0, 0.0, -0.2),
        ValueError,
        r"sigma must be >= 0, got -0\.2",
    ),
    "sigma nan": (lambda: sde.Wiener(np.nan), ValueError, "sigma must be finite, got nan"),
    "sigma inf": (lambda: sde.GeometricBrownian(0.1, np.inf), ValueError, "sigma must be finite, got inf"),
    "sigma a string": (lambda: sde.Wiener("1"), TypeError, "sigma must be a real number, got '1'"),
    "theta a bool": (lambda: sde.OrnsteinUhlenbeck(True), TypeError, "theta must be a real number, got True"),
    "theta complex": (lambda: sde.OrnsteinUhlenbeck(1j), TypeError, "theta must be a real number"),
    "no stationary law": (
        lambda: sde.OrnsteinUhlenbeck(-1.0).stationary(),
        ValueError,
        r"only for theta > 0, got -1\.0",
    ),
    "CIR below zero": (
        simulated(sde.CoxIngersollRoss(1.0, 1.0, 0.5), -0.1),
        ValueError,
        r"x0 must be >= 0 for CoxI.*, got min -0\.1",
    ),
    "CIR without Feller": (lambda: sde.CoxIngersollRoss(1.0, 0.1, 1.0), UserWarning, "Feller"),
    "parameter nan": (
        lambda: sde.ito(lambda x, t, a: a * x, still, a=np.nan),
        ValueError,
        "a must be finite",
    ),
    "parameter not used": (lambda: sde.ito(still, still, speed=1.0), TypeError, "speed is not a parameter"),
    "parameter not given": (
        lambda: sde.ito(lambda x, t, rate, mu: -x, still, mu=1.0),
        TypeError,
        r"takes rate, which is no parameter",
    ),
    "noise unknown": (
        lambda: sde.ito(still, still, noise="diagnal"),
        ValueError,
        "noise must be one of .*did you mean 'diagonal'",
    ),
    "dim zero": (lambda: sde.ito(still, still, dim=0), ValueError, "dim must be >= 1, got 0"),
    "general noise without dim": (
        lambda: sde.ito(still, still, noise="general"),
        ValueError,
        "needs dim >= 2",
    ),
    # ---- coefficients ----
    "drift not callable": (
        lambda: sde.ito(1.0, still),
        TypeError,
        r"drift must be callable as drift\(x, t.*got float",
    ),
    "drift of one argument": (
        lambda: sde.ito(lambda x: x, still),
        TypeError,
        r"drift must be .*; got 1 argument",
    ),
    "drift of no argument": (lambda: sde.ito(lambda: 0.0, still), TypeError, r"got 0 arguments"),
    "diffusion not callable": (
        lambda: sde.ito(still, "1"),
        TypeError,
        "diffusion must be callable .*got str",
    ),
    "drift of another shape": (
        from_functions(lambda x, t: np.zeros(3), x0=np.zeros(2)),
        ValueError,
        r"drift returned shape \(3,\), expected",
    ),
    "drift of too many components": (
        from_functions(lambda x, t: (1.0, 2.0, 3.0), x0=(0, 0), dim=2),
        ValueError,
        "drift returned 3 .*expected 2",
    ),
    "drift a number where components are needed": (
        from_functions(lambda x, t: 1.0, x0=(0, 0), dim=2),
        ValueError,
        "drift returned a number, expected a tuple of 2",
    ),
    "drift a tuple without dim": (
        from_functions(lambda x, t: (1.0, 2.0)),
        ValueError,
        "drift returned 2 components.*pass dim=2",
    ),
    "drift a string": (from_functions(lambda x, t: "a"), TypeError, "drift must return real numbers"),
    "drift None": (from_functions(lambda x, t: None), TypeError, "drift must return real numbers"),
    "drift complex": (from_functions(lambda x, t: 1j * x), TypeError, "drift must return real numbers"),
    "drift nan at x0": (
        from_functions(lambda x, t: np.sqrt(x - 1.0)),
        ValueError,
        r"drift\(x0, t0\) is nan at x0 = ",
    ),
    "drift inf at x0": (from_functions(lambda x, t: 1.0 / x), ValueError, r"drift\(x0, t0\) is inf"),
    "diffusion nan at x0": (
        from_functions(still, lambda x, t: np.log(x)),
        ValueError,
        r"diffusion\(x0, t0\) is -inf",
    ),
    "rows missing": (
        from_functions(lambda x, t: x, lambda x, t: (1.0, 2.0), x0=(0, 0), dim=2, noise="general"),
        ValueError,
        r"diffusion returned \(2,\), noise='general' needs 2 rows of m",
    ),
    "rows of several lengths": (
        from_functions(lambda x, t: x, lambda x, t: ((1.0,), (2.0, 1.0)), x0=(0, 0), dim=2, noise="general"),
        ValueError,
        "2 rows",
    ),
    # ---- time ----
    "span reversed": (simulated(t_span=(1.0, 0.5)), ValueError, r"t1 = 0\.5 after t0 = 1; .*ReverseProcess"),
    "span of no length": (simulated(t_span=(1.0, 1.0)), ValueError, "t_span must increase"),
    "span nan": (simulated(t_span=(0.0, np.nan)), ValueError, r"t_span\[1\] must be finite, got nan"),
    "span infinite": (simulated(t_span=(-np.inf, 0)), ValueError, r"t_span\[0\] must be finite, got -inf"),
    "span a number": (simulated(t_span=1.0), ValueError, r"t_span must be a pair \(t0, t1\), got 1\.0"),
    "span of three": (simulated(t_span=(0, 1, 2)), ValueError, "t_span must be a pair"),
    "span of strings": (
        simulated(t_span=("a", "b")),
        TypeError,
        r"t_span\[0\] must be a real number, got 'a'",
    ),
    "steps too short to advance": (
        simulated(t_span=(1e16, 1e16 + 4), n_steps=1000),
        ValueError,
        "n_steps=1000 .*rounding",
    ),
    # ---- counts ----
    "n_steps fractional": (simulated(n_steps=10.5), TypeError, r"n_steps must be an integer, got 10\.5"),
    "n_steps zero": (simulated(n_steps=0), ValueError, "n_steps must be >= 1, got 0"),
    "n_steps negative": (simulated(n_steps=-3), ValueError, "n_steps must be >= 1, got -3"),
    "n_steps nan": (simulated(n_steps=np.nan), TypeError, "n_steps must be an integer, got nan"),
    "n_steps a string": (simulated(n_steps="10"), TypeError, "n_steps must be an integer, got '10'"),
    "n_steps an array": (simulated(n_steps=np.array([3])), TypeError, "n_steps must be an integer"),
    "n_steps beyond the counter": (simulated(n_steps=2**33), ValueError, "n_steps must be < 8589934592"),
    "n_paths a bool": (simulated(n_paths=True), TypeError, "n_paths must be an integer, got True"),
    "n_paths zero": (simulated(n_paths=0), ValueError, "n_paths must be >= 1, got 0"),
    "n_paths fractional": (
        simulated(n_paths=1e3 + 0.5),
        TypeError,
        r"n_paths must be an integer, got 1000\.5",
    ),
    "n_paths missing": (simulated(n_paths=None), ValueError, "x0 is one state; give n_paths"),
    "n_paths missing for a target": (
        simulated(x0=sde.targets.Gaussian(0.0, 1.0), n_paths=None),
        ValueError,
        "n_paths must be given when x0 is a target",
    ),
    "n_paths unlike x0": (
        simulated(ROTATION, np.zeros((7, 2))),
        ValueError,
        "x0 holds 7 states, but n_paths is 5",
    ),
    "first_path negative": (simulated(first_path=-1), ValueError, "first_path must be >= 0, got -1"),
    "first_path beyond the counter": (
        simulated(first_path=2**63 - 2),
        ValueError,
        r"first_path \+ n_paths must be <",
    ),
    "a result too large": (simulated(n_paths=10**12), MemoryLimitError, "GiB"),
    # ---- x0 ----
    "x0 nan": (
        simulated(x0=[0.0, 1.0, 2.0, np.nan], n_paths=None),
        ValueError,
        r"x0 must be finite, got nan at index 3 \(1 non",
    ),
    "x0 inf": (
        simulated(ROTATION, [[0, 1], [np.inf, np.nan]], n_paths=None),
        ValueError,
        r"got inf at index \(1, 0\) \(2 non",
    ),
    "x0 complex": (simulated(x0=1j), TypeError, "x0 must hold real numbers, got dtype complex128"),
    "x0 a string": (simulated(x0="a"), TypeError, "x0 must hold real numbers"),
    "x0 a bool": (simulated(x0=True), TypeError, "x0 must hold real numbers, got dtype bool"),
    "x0 None": (simulated(x0=None), TypeError, "x0 must hold real numbers"),
    "x0 ragged": (simulated(x0=[[1, 2], [3]]), TypeError, "x0 must be a rectangular array"),
    "x0 of three components": (
        simulated(ROTATION, np.zeros(3)),
        ValueError,
        r"x0 has shape \(3,\), expected .*\(2,\)",
    ),
    "x0 rows of three": (
        simulated(ROTATION, np.zeros((4, 3)), n_paths=None),
        ValueError,
        r"x0 has shape \(4, 3\), expected .*\(2,\)",
    ),
    "x0 of no paths": (simulated(x0=np.zeros(0), n_paths=None), ValueError, "at least one path"),
    "x0 of no components": (simulated(x0=np.zeros(0)), ValueError, "at least one component"),
    "x0 too large for float32": (simulated(x0=1e39, dtype="float32"), ValueError, "x0 .*float32"),
    "x0 a target of another dimension": (
        simulated(ROTATION, sde.targets.Gaussian(0.0, 1.0)),
        ValueError,
        "x0 has dimension 1, the process has dimension 2",
    ),
    # ---- choices ----
    "dtype float16": (
        simulated(dtype="float16"),
        ValueError,
        "dtype must be float32 or float64, got float16",
    ),
    "dtype int": (simulated(dtype=int), ValueError, "dtype must be float32 or float64, got int64"),
    "dtype nonsense": (simulated(dtype="flot"), TypeError, "dtype must be float32 or float64, got 'flot'"),
    "method misspelt": (simulated(method="eulr_maruyama"), ValueError, "did you mean 'euler_maruyama'"),
    "method None": (simulated(method=None), ValueError, "method must be one of"),
    "on_nonfinite unknown": (
        simulated(on_nonfinite="stop"),
        ValueError,
        "on_nonfinite must be one of 'raise', 'freeze'",
    ),
    "milstein on general noise": (
        simulated(MIXED, (0, 0), method="milstein"),
        ValueError,
        "milstein takes diagonal noise, and .* has noise='general'; use .*'euler_maruyama'",
    ),
    "exact without a transition": (
        simulated(ROTATION, (0, 0), method="exact"),
        ValueError,
        "method='exact' needs",
    ),
    "noise that begins later": (
        simulated(sde.ito(lambda x, t: -x, lambda x, t: 0.5 * (t > 1.0)), 0.0, method="rk4"),
        ValueError,
        "rk4 takes no noise",
    ),
    "one path under a weak scheme": (
        simulated(method="weak_euler", increments=np.zeros((3, 10))),
        ValueError,
        "weak_euler follows no Brownian path",
    ),
    "passages under a weak scheme": (
        simulated(method="weak_second", reduce=[sde.FirstPassage(-1.0, 1.0)]),
        ValueError,
        "looks at the paths between steps",
    ),
    "tolerances of a fixed step": (simulated(rtol=1e-3), ValueError, "rtol belongs to adaptive methods"),
    "no walls": (simulated(boundary="reflecting"), TypeError, "boundary must be walls"),
    "baoab without a force": (simulated(method="baoab"), ValueError, "baoab' needs a process with force"),
    "noise of another component": (
        lambda: sde.simulate(
            sde.ito(lambda x, t: (x[0], x[1]), lambda x, t: (0.1 * x[1], 0.2), dim=2),
            (1.0, 1.0),
            (0, 1),
            n_steps=2,
            n_paths=2,
            method="sri",
        ),
        ValueError,
        r"component 0 of .* reads x\[1\]; use 'milstein_levy'",
    ),
    "unknown keyword": (simulated(step_size=0.1), TypeError, "step_size"),
    "no steps given": (lambda: sde.simulate(OU, 0.0, (0, 1), n_paths=3), TypeError, "n_steps"),
    "no process": (simulated(process=3.0), TypeError, r"process must have drift\(x, t\)"),
    "a class in place of a process": (
        simulated(process=sde.OrnsteinUhlenbeck),
        TypeError,
        r"OrnsteinUhlenbeck is a class.*OrnsteinUhlenbeck\(",
    ),
    # ---- seed ----
    "seed negative": (simulated(seed=-1), ValueError, r"seed must be an integer in \[0, 2\*\*64\), got -1"),
    "seed too large": (simulated(seed=2**64), ValueError, r"seed must be an integer in \[0, 2\*\*64\)"),
    "seed fractional": (simulated(seed=1.5), TypeError, r"seed must be .*got 1\.5"),
    "seed a string": (simulated(seed="a"), TypeError, "seed must be .*got 'a'"),
    "seed a bool": (simulated(seed=True), TypeError, "seed must be .*got True"),
    # ---- what is saved ----
    "save unsorted": (
        simulated(save=[0.0, 0.5, 0.2]),
        ValueError,
        r"save must be .*increasing; index 2: 0\.2 after 0\.5",
    ),
    "save twice": (simulated(save=[0.5, 0.5]), ValueError, "strictly increasing; index 1"),
    "save outside": (simulated(save=[0.0, 0.5, 2.0]), ValueError, r"save\[2\]=2 is outside \[0, 1\]"),
    "save off the grid": (
        simulated(save=[0.0, 0.33]),
        ValueError,
        r"save\[1\]=0\.33 is not on .*nearest step is at 0\.3",
    ),
    "save zero": (simulated(save=0), ValueError, "save must be >= 1, got 0"),
    "save a fraction": (simulated(save=2.5), TypeError, r"save must be an integer, got 2\.5"),
    "save misspelt": (
        simulated(save="al"),
        ValueError,
        "save must be one of 'final', 'all', got 'al'; did you mean 'all'",
    ),
    "save nan": (simulated(save=[0.1, np.nan]), ValueError, "save must be finite"),
    "save nothing": (simulated(save=[]), ValueError, "save holds no times"),
    "save None": (simulated(save=None), TypeError, "save must be"),
    "reduce no reduction": (
        simulated(reduce=["mean"]),
        TypeError,
        "reduce must hold reductions .*got 'mean'",
    ),
    "reduce not a list": (simulated(reduce=sde.Moments()), TypeError, r"reduce must be a list .*\[Moments"),
    "reduce a class": (simulated(reduce=[sde.Moments]), TypeError, "reduce must hold reductions .*Moments"),
    # ---- execution ----
    "executor without submit": (
        simulated(executor=3),
        TypeError,
        r"executor must have submit\(function, \*args\), got int",
    ),
    "workers zero": (simulated(workers=0), ValueError, "workers must be >= 1, got 0"),
    "workers a bool": (simulated(workers=True), TypeError, "workers must be an integer"),
    "progress a string": (simulated(progress="yes"), TypeError, "progress must be True, False or a function"),
    # ---- increments ----
    "increments of another shape": (
        simulated(increments=np.zeros((5, 9))),
        ValueError,
        r"increments has shape \(5, 9\), expected \(5, 10\)",
    ),
    "increments of another noise": (
        simulated(MIXED, (0, 0), increments=np.zeros((5, 10, 3))),
        ValueError,
        r"expected \(5, 10, 2\)",
    ),
    "increments nan": (
        simulated(increments=np.full((5, 10), np.nan)),
        ValueError,
        "increments must be finite",
    ),
    "increments a string": (simulated(increments="a"), TypeError, "increments must hold real numbers"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_refused(name, monkeypatch):
    action, kind, match = CASES[name]

    def compiled(*args):
        raise AssertionError("something was compiled before the inputs were checked")

    monkeypatch.setattr(cache, "load", compiled)
    start = time.perf_counter()
    if issubclass(kind, Warning):
        with pytest.warns(kind, match=match):
            action()
    else:
        with pytest.raises(kind, match=match) as caught:
            action()
        assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 0.5


def test_integral_floats_and_integers_are_taken():
    paths = sde.simulate(OU, 1, (0, 1), n_steps=np.int32(4), n_paths=1e2, seed=np.int64(3), dtype="f8")
    assert paths.final.shape == (100,)
    assert paths.final.dtype == np.float64
    assert sde.simulate(OU, np.arange(3), (0, 1), n_steps=2, seed=1).final.dtype == np.float64
    assert sde.OrnsteinUhlenbeck(1).theta == 1.0
