"""The benchmark of learned scores in the plane, in short: its figures see what is wrong, and floors are floors."""

import importlib.util
import pathlib

import numpy as np
import pytest

import sdesim as sde

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "score_quality.py"


@pytest.fixture(scope="module")
def quality():
    spec = importlib.util.spec_from_file_location("score_quality", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:  # the script asks BLAS for one thread
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patched.setenv(name, "1")
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ring of 8", "checkerboard"])
def test_figures_of_the_exact_score_and_of_a_wrong_one(quality, name):
    target = quality.SHAPES[name]
    exact = sde.marginal_score(quality.PROCESS, target)
    x = target.sample(1000, 4)
    gap = quality.mean(target.log_density(x) - quality.log_likelihood(exact, x, 40))
    assert abs(gap[0]) < 0.03
    fisher = quality.fisher(exact, exact, target, 200)
    assert np.abs(fisher).max() == 0.0

    def weak(x, t):
        return 0.8 * exact(x, t)

    assert quality.mean(target.log_density(x) - quality.log_likelihood(weak, x, 40))[0] > 0.1
    np.testing.assert_allclose([m for m, _ in quality.fisher(weak, exact, target, 200)], 0.04)
    # a score of blurred edges lets samples out of the squares; a weak one makes modes wide
    blurred = sde.marginal_score(quality.PROCESS, sde.targets.Checkerboard(std=0.1))
    wrong_score = weak if name == "ring of 8" else blurred
    for kind, n_steps, method in ((sde.ProbabilityFlow, 8, "heun"), (sde.ReverseProcess, 20, "euler_maruyama")):
        right, wrong = (
            quality.judged(target, quality.samples(s, kind, 1000, n_steps, method)) for s in (exact, wrong_score)
        )
        if name == "checkerboard":
            assert right["in_support"][0] > 0.99
            assert wrong["in_support"][0] < 0.93
        else:
            assert right["modes"] == 8
            assert abs(right["log_p"][0]) < 4 * right["log_p"][1]
            assert abs(wrong["log_p"][0]) > 4 * wrong["log_p"][1]
    missing = x[np.abs(np.arctan2(x[:, 1], x[:, 0])) > 0.4]  # without the mode at angle 0
    if name == "ring of 8":
        assert quality.judged(target, missing)["modes"] == 7


@pytest.mark.slow
def test_a_short_training_on_the_checkerboard(quality):
    row = quality.measured("checkerboard", 1200, 16, 1)
    network, exact = row["network"], row["exact"]
    assert network["nll_gap"][0] < 0.25
    assert network["flow"]["in_support"][0] > 0.85 > 0.5  # half of the square is support
    assert abs(exact["nll_gap"][0]) < 0.03
    assert row["fisher"][-1][0] < 0.01
    assert len(quality.met(row)) == 3
