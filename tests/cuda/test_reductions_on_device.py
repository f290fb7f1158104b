"""What is taken in the kernel has the bits of the CPU's recorders; in numba's simulator."""

import numpy as np
import pytest
from zoo import GENERAL, OU

import sdesim as sde
from sdesim.cuda import reductions
from sdesim.integrate.reductions.tree import dyadic_nodes


def both(process, x0, reduce, **options):
    """The results of a reduction on the CPU and on the device."""
    run = {"n_steps": 9, "n_paths": 100, "seed": 5, "dtype": np.float32, "first_path": 300, **options}
    results = [
        sde.simulate(process, x0, (0.0, 1.0), reduce=reduce(), device=device, **run).reductions
        for device in ("cpu", "cuda")
    ]
    return list(zip(*results, strict=True))


def same(cpu, device, *names):
    for name in names:
        np.testing.assert_array_equal(getattr(device, name), getattr(cpu, name))


@pytest.mark.cudasim
def test_histograms_and_moments_of_a_part_of_a_leaf():
    """The paths 300 … 399 are lanes 44 … 143 of a leaf: their sums are those of its maximal dyadic nodes."""

    def reduce():
        return [sde.Histogram(-1.0, 1.5, 13), sde.Moments(), sde.Observable(lambda x, t: (x * x + t, x > 0.3))]

    histogram, moments, observable = both(OU, 0.5, reduce)
    same(*histogram, "counts", "outside")
    same(*moments, "mean", "covariance")
    same(*observable, "mean", "covariance")
    assert moments[1].n == 100


@pytest.mark.cudasim
@pytest.mark.slow
def test_counts_and_moments_of_other_paths_are_others():
    """Counts agree for the right paths only, and moments show a path that is left out."""
    (cpu, device), (m_cpu, m_device) = both(OU, 0.5, lambda: [sde.Histogram(-1.0, 1.5, 13), sde.Moments()])
    other = both(OU, 0.5, lambda: [sde.Histogram(-1.0, 1.5, 13), sde.Moments()], first_path=301)
    assert np.array_equal(cpu.counts, device.counts)
    assert np.array_equal(m_cpu.mean, m_device.mean)
    assert not np.array_equal(other[0][1].counts, cpu.counts)
    assert not np.array_equal(other[1][1].mean, m_cpu.mean)


@pytest.mark.cudasim
@pytest.mark.slow
def test_joint_histograms_and_what_the_host_is_fed_with():
    def reduce():
        return [
            sde.Histogram([-1.0, -1.0], [1.5, 2.0], [5, 7]),
            sde.Moments(),
            sde.Autocorrelation(2),
            sde.Quantiles(0.5),
        ]

    joint, moments, correlation, quantiles = both(GENERAL, [0.5, 0.2], reduce, n_paths=40, save=3)
    same(*joint, "counts", "outside")
    same(*moments, "mean", "covariance")
    same(*correlation, "autocovariance")
    same(*quantiles, "values")


@pytest.mark.cudasim
@pytest.mark.parametrize(
    ("process", "x0", "what"),
    [
        (OU, 0.5, {"lower": 0.0, "upper": 1.0}),
        pytest.param(GENERAL, [0.5, 0.2], {"upper": 0.25, "component": 1}, marks=pytest.mark.slow),
        pytest.param(GENERAL, [0.5, 0.2], {"of": lambda x: x[0] * x[0] + x[1] * x[1] < 0.32}, marks=pytest.mark.slow),
    ],
    ids=["levels", "component", "set"],
)
def test_first_passages(process, x0, what):
    ((cpu, device),) = both(process, x0, lambda: [sde.FirstPassage(keep=True, bins=10, **what)], n_paths=40)
    same(cpu, device, "times", "sides", "counts")
    assert device.mean_time == cpu.mean_time
    assert device.standard_error == cpu.standard_error
    assert cpu.counts.sum() > 0


@pytest.mark.parametrize(("lo", "hi"), [(0, 256), (44, 144), (255, 256), (1, 255), (7, 9), (128, 256)])
def test_nodes_are_numbered_as_the_cpu_writes_them(lo, hi):
    found = {}
    for level in range(9):
        for lane in range(0, 256, 2**level):
            if reductions.is_node(lo, hi, 2**level, lane):
                found[reductions.node_rank(lo, hi, 2**level, lane)] = (level, lane >> level)
    assert [found[rank] for rank in range(len(found))] == dyadic_nodes(lo, hi - lo)
