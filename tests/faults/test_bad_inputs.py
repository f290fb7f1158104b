"""Bad inputs: each is refused by type and message, at once, and before anything compiles.

``NUMBERED`` says which cases are numbers 1 to 50 of the list that the library was asked to refuse.
"""

import functools
import pathlib
import time

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import cache
from sdesim.errors import CompileError, DeviceError, MemoryLimitError

OU = sde.OrnsteinUhlenbeck(1.0, 0.0, 0.5)
ROTATION = sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: (1.0, 1.0), dim=2)
MIXED = sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: ((1.0, 0.2), (x[0], 1.0)), dim=2, noise="general")


def simulated(process=OU, x0=0.0, t_span=(0.0, 1.0), *, n_steps=10, n_paths=5, **more):
    return lambda: sde.simulate(process, x0, t_span, n_steps=n_steps, n_paths=n_paths, **more)


def from_functions(drift, diffusion=lambda x, t: 1.0, x0=0.0, **more):
    return lambda: simulated(sde.ito(drift, diffusion, **more), x0)()


def still(x, t):
    return 0.0 * x


GRID = sde.Grid(-4, 4, 100)
FLAT = np.full(100, 1.0 / 8.0)
POINTS = np.random.default_rng(0).standard_normal((64, 2))
VP = sde.VariancePreserving()
HERE = pathlib.Path(__file__).parent


@functools.cache
def net():
    return sde.ScoreMLP(2, (4,), seed=1)


def evolved(process=OU, p0=None, grid=GRID, t_span=(0.0, 1.0), **more):
    return lambda: sde.evolve_density(process, sde.gaussian(grid, 0.0, 0.5) if p0 is None else p0, grid, t_span, **more)


def fitted(data=POINTS, **more):
    return lambda: sde.fit_score(net(), data, n_iterations=3, **{"process": VP, **more})


def sampled(n=3, *, process=VP, n_steps=5, **more):
    return lambda: sde.sample(process, net(), n, n_steps=n_steps, **more)


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
        r"^n_paths must be an integer, got 1000\.5",
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
    # ---- steps by their size: there are none, as such steps may not divide the span ----
    "a step": (simulated(dt=0.3), TypeError, "unexpected keyword argument 'dt'"),
    "a step that is no number": (simulated(dt=np.nan), TypeError, "unexpected keyword argument 'dt'"),
    # ---- targets ----
    "covariance not positive": (
        lambda: sde.targets.Gaussian([0, 0], [[1, 2], [2, 1]]),
        ValueError,
        "cov must be positive definite, its smallest eigenvalue is -1",
    ),
    "covariance not symmetric": (
        lambda: sde.targets.Gaussian([0, 0], [[1, 0.5], [0.2, 1]]),
        ValueError,
        r"cov must be symmetric; its largest asymmetry is 0\.3",
    ),
    "one covariance of several": (
        lambda: sde.targets.GaussianMixture([0.5, 0.5], [[0, 0], [1, 1]], [np.eye(2), [[1, 2], [2, 1]]]),
        ValueError,
        r"covs\[1\] must be positive definite",
    ),
    # ---- grids and densities ----
    "edges not increasing": (
        lambda: sde.Grid.from_edges([0, 1, 1, 2]),
        ValueError,
        "edges must increase; index 2: 1 after 1",
    ),
    "two cells": (lambda: sde.Grid(-1, 1, 2), ValueError, "n_cells must be >= 3, got 2: a grid needs at least 3 cells"),
    "half a cell": (lambda: sde.Grid(-1, 1, 10.5), TypeError, r"n_cells must be an integer, got 10\.5"),
    "bounds reversed": (lambda: sde.Grid(4, -4, 100), ValueError, r"lower \(4\) must be < upper \(-4\)"),
    "bounds nan": (lambda: sde.Grid(np.nan, 4, 100), ValueError, "lower must be finite, got nan"),
    "p0 negative": (evolved(p0=-FLAT), ValueError, r"p0 is negative in cell 0: -0\.125; a density must be >= 0"),
    "p0 not normalised": (
        evolved(p0=0.83 * FLAT),
        ValueError,
        r"p0 integrates to 0\.83, expected 1 \(tol 1e-06\); .*pass p0 / \(p0\.sum\(\)",
    ),
    "p0 cut off by the walls": (
        lambda: evolved(p0=sde.gaussian(GRID, 3.9, 1.0))(),
        ValueError,
        r"p0 integrates to 0\.539828, expected 1 .*widen the grid",
    ),
    "p0 nan": (evolved(p0=FLAT * np.nan), ValueError, r"p0 must be finite, got nan at index 0 \(100 non"),
    "p0 too short": (evolved(p0=FLAT[:90]), ValueError, "p0 has 90 values, grid has 100 cells"),
    "an explicit method": (evolved(method="explicit"), ValueError, "method must be one of 'auto', .*got 'explicit'"),
    "diffusion of no real size": (
        evolved(sde.ito(lambda x, t: -x, lambda x, t: np.sqrt(x))),
        ValueError,
        r"diffusion is nan at x = -3\.96.* it must be finite inside the grid",
    ),
    "boundary misspelt": (
        evolved(boundary="reflectng"),
        ValueError,
        "boundary must be one of .*did you mean 'reflecting'",
    ),
    "periodic at one wall": (
        evolved(boundary=("periodic", "reflecting")),
        ValueError,
        "periodic at both walls or at neither",
    ),
    "progress of a density": (evolved(progress="yes"), TypeError, "progress must be True or False, got 'yes'"),
    "bins reversed": (lambda: sde.Histogram(2, 1, 10), ValueError, "lower 2 must be < upper 1"),
    # ---- learning and sampling ----
    "data of one dimension": (
        fitted(POINTS[:, 0]),
        ValueError,
        r"data has shape \(64,\), expected \(n, 2\) for a network of dim 2",
    ),
    "data nan": (
        fitted(np.where(POINTS > 1.0, np.nan, POINTS)),
        ValueError,
        "data must be finite, got nan at row 3, column 0",
    ),
    "no data": (fitted(POINTS[:0]), ValueError, "data is empty: .*at least one batch of points is needed"),
    "batches of nothing": (fitted(batch_size=0), ValueError, "batch_size must be >= 1, got 0"),
    "beta decreasing": (
        lambda: sde.VariancePreserving(10, 0.1),
        ValueError,
        r"beta_max must be > beta_min = 10, got 0\.1",
    ),
    "noise decreasing": (
        lambda: sde.VarianceExploding(10, 0.1),
        ValueError,
        r"sigma_max must be > sigma_min = 10, got 0\.1",
    ),
    "no noise at the smallest time": (fitted(t_min=0.0), ValueError, "noise level is 0 .*choose t_min > 0"),
    "a time below 0": (sampled(t_end=-1.0), ValueError, "t_end must be >= 0, got -1"),
    "samples fewer than none": (sampled(-1), ValueError, "n must be >= 1, got -1"),
    "samples in no steps": (sampled(n_steps=0), ValueError, "n_steps must be >= 1, got 0"),
    "sampler misspelt": (sampled(method="reverse_sd"), ValueError, "method must be .*did you mean 'reverse_sde'"),
    "sampler of an unknown keyword": (sampled(n_step=5), TypeError, "unexpected keyword argument 'n_step'"),
    "samples from an executor that is none": (sampled(executor=3), TypeError, r"executor must have submit\(function"),
    "expectations from an executor that is none": (
        lambda: sde.expect(OU, lambda x: x, 0.0, (0, 1), 0.1, executor="threads"),
        TypeError,
        r"executor must have submit\(function, \*args\), got str",
    ),
    "progress of samples": (sampled(progress="yes"), TypeError, "progress must be True, False or a function"),
    "progress of a training": (fitted(progress=1), TypeError, "progress must be True, False or a function.*got 1"),
    "points of another dimension": (lambda: net()(np.ones((4, 3)), 0.5), ValueError, r"x has shape \(4, 3\), expected"),
    "likelihood of another dimension": (
        lambda: sde.log_likelihood(VP, net(), np.ones((4, 3))),
        ValueError,
        r"x has shape \(4, 3\), expected \(n, 2\)",
    ),
    "checkpoint a folder": (
        fitted(checkpoint=HERE),
        ValueError,
        "checkpoint path is a folder: .*give the path of a file",
    ),
    "network saved to a folder": (
        lambda: sde.save(net(), HERE),
        IsADirectoryError,
        "is a folder; give the name of a file",
    ),
    "device unknown": (sampled(device="gpu"), ValueError, "device must be one of 'cpu', 'cuda', got 'gpu'"),
    "debug a word": (simulated(debug="yes"), TypeError, "debug must be True or False, got 'yes'"),
}

# The numbers of the list, and the cases that are theirs; a text where there is no such input, or a test of its own.
NUMBERED = {
    1: ["sigma negative"], 2: ["sigma nan", "sigma inf"], 3: ["no stationary law"], 4: ["CIR below zero"],
    5: ["CIR without Feller"], 6: ["a step", "n_steps zero"], 7: ["a step", "span reversed"],
    8: ["a step that is no number", "n_steps nan"], 9: ["a step"], 10: ["a step"],
    11: ["span reversed", "span of no length"], 12: ["save unsorted", "save twice"],
    13: ["save outside", "save off the grid"], 14: ["n_steps fractional"],
    15: ["n_steps zero", "n_paths zero", "n_steps negative"], 16: "test_integral_floats_and_integers_are_taken",
    17: ["n_paths a bool"], 18: ["x0 nan", "x0 inf"], 19: ["x0 of three components", "x0 rows of three"],
    20: ["x0 complex", "x0 a string", "x0 None", "x0 ragged"], 21: "test_integral_floats_and_integers_are_taken",
    22: ["dtype float16", "dtype int"], 23: ["drift not callable", "drift of one argument", "drift of no argument"],
    24: ["drift of another shape", "drift of too many components", "drift a tuple without dim"],
    25: "test_a_drift_that_does_not_compile_is_explained", 26: ["drift nan at x0", "drift inf at x0"],
    27: ["rows missing", "rows of several lengths"],
    28: ["covariance not positive", "covariance not symmetric", "one covariance of several"],
    29: ["milstein on general noise", "noise of another component"], 30: ["method misspelt", "sampler misspelt"],
    31: ["unknown keyword", "sampler of an unknown keyword"],
    32: ["seed negative", "seed fractional", "seed too large", "seed a string"], 33: ["edges not increasing"],
    34: ["two cells", "half a cell"], 35: ["bounds reversed"], 36: ["p0 negative", "p0 not normalised", "p0 nan"],
    37: ["p0 too short"], 38: ["p0 cut off by the walls"],
    # in tests/test_guards.py: exponential fitting does not oscillate, and what it adds to the diffusion is told
    39: "test_a_drift_too_strong_for_the_cells_is_pointed_out_with_the_cells_needed",
    40: ["an explicit method"], 41: ["diffusion of no real size"], 42: ["boundary misspelt", "periodic at one wall"],
    43: "test_a_histogram_beside_the_paths_is_pointed_out", 44: ["data of one dimension", "data nan", "no data"],
    45: ["beta decreasing", "noise decreasing", "no noise at the smallest time", "a time below 0"],
    46: ["samples fewer than none", "samples in no steps"],
    47: ["points of another dimension", "likelihood of another dimension"],
    48: [
        "executor without submit", "samples from an executor that is none",
        "expectations from an executor that is none",
    ],
    49: ["checkpoint a folder", "network saved to a folder"],
    50: "test_cuda_without_a_device_says_what_is_missing",
}  # fmt: skip


def test_every_number_has_its_case():
    assert list(NUMBERED) == list(range(1, 51))
    texts = (HERE.parent / "test_guards.py").read_text() + pathlib.Path(__file__).read_text()
    for cases in NUMBERED.values():
        if isinstance(cases, str):
            assert f"def {cases.split()[0]}(" in texts
        else:
            assert set(cases) <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_refused(name, monkeypatch):
    action, kind, match = CASES[name]
    net()  # its first weights are drawn by a compiled kernel

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


def test_a_drift_that_does_not_compile_is_explained():
    with pytest.raises(CompileError, match=r"drift does not compile: .*compiled=False") as caught:
        simulated(sde.ito(lambda x, t: sum(x for _ in range(2)), lambda x, t: 1.0))()
    assert "\n" not in str(caught.value)


def test_a_histogram_beside_the_paths_is_pointed_out():
    with pytest.warns(UserWarning, match=r"100% of the paths and more lie in no bin .*result\.outside counts them"):
        paths = simulated(n_paths=600, reduce=[sde.Histogram(30, 31, 10)])()
    assert paths.reductions[0].outside.tolist() == [600]
    simulated(n_paths=600, reduce=[sde.Histogram(-0.5, 0.5, 10)])()  # what leaves a good range is no news


def test_cuda_without_a_device_says_what_is_missing():
    from sdesim.cuda import backend

    if backend.available()[0]:
        pytest.skip("this machine has a device")
    with pytest.raises(DeviceError, match="device='cuda' cannot be used: "):
        sampled(device="cuda")()
