"""Every figure draws on the given axes or on its own, returns them, labels them, shows what it should."""

import io
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from scipy.special import ndtr

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

import sdesim as sde
from sdesim import plot


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def walks(d=None, n_paths=30, n_times=40):
    steps = np.random.default_rng(1).standard_normal((n_paths, n_times, *(() if d is None else (d,))))
    x = np.cumsum(steps, axis=1)
    return SimpleNamespace(t=np.arange(float(n_times)), x=x, final=x[:, -1])


def normals(times):
    edges = np.linspace(-6, 6, 301)
    p = np.stack([np.diff(ndtr(edges / np.sqrt(t))) / np.diff(edges) for t in times])
    p /= p.sum(axis=1, keepdims=True) * (edges[1] - edges[0])
    grid = SimpleNamespace(edges=edges, centers=(edges[1:] + edges[:-1]) / 2, spacing=edges[1] - edges[0])
    return SimpleNamespace(grid=grid, t=np.array(times), p=p, final=p[-1])


def plane():
    edges = np.linspace(-2, 2, 21), np.linspace(-1, 1, 11)
    x, y = np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij")
    p = np.exp(-2 * (x - 1) ** 2 - y**2)
    return SimpleNamespace(grid=SimpleNamespace(edges=edges), t=np.array([1.0]), p=p[None], final=p)


def turning(n_times=1):
    """A rotating Gaussian with its current, as solved."""
    process = sde.ito(lambda x, t: (-x[0] - 2 * x[1], 2 * x[0] - x[1]), lambda x, t: (1.0, 1.0), dim=2)
    grid = sde.Grid((-3.0, -2.5), (3.0, 2.5), (48, 40))
    p = np.stack([sde.gaussian(grid, 0.0, np.sqrt(0.5) + 0.1 * k) for k in range(n_times)])
    p /= (p * grid.cell_volume).sum(axis=(1, 2), keepdims=True)
    sides = (("reflecting", "reflecting"),) * 2
    return sde.Density(np.arange(float(n_times)), p, grid, process, sides, np.zeros((n_times, 2, 2)), "given")


def line():
    process, grid = sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sde.Grid(-4.0, 4.0, 80)
    p = sde.gaussian(grid, 1.0, 0.5)
    return sde.Density(np.zeros(1), p[None], grid, process, ("reflecting", "reflecting"), np.zeros((1, 2)), "given")


def training(n=1000):
    losses = 1.0 + np.exp(-np.arange(n) / 50) + 0.2 * np.random.default_rng(4).standard_normal(n)
    return SimpleNamespace(losses=losses, validation=np.array([[0, 2.0], [200, 1.02], [400, 1.01], [600, 1.03]]))


POINTS = np.random.default_rng(7).standard_normal((20_000, 2)) * np.sqrt(0.5)
SAMPLES = np.random.default_rng(2).standard_normal(20_000)

FIGURES = {
    "paths": lambda ax: plot.paths(walks(), ax),
    "paths_plane": lambda ax: plot.paths(walks(2), ax, n=3),
    "paths_component": lambda ax: plot.paths(walks(3), ax, component=2),
    "density_lines": lambda ax: plot.density(normals([0.3, 1.0]), ax),
    "density_map": lambda ax: plot.density(normals(list(np.linspace(0.1, 1, 20))), ax),
    "density_plane": lambda ax: plot.density(plane(), ax),
    "compare": lambda ax: plot.compare(SAMPLES, normals([1.0]), ax),
    "compare_cdf": lambda ax: plot.compare(SAMPLES, ndtr, ax),
    "convergence": lambda ax: plot.convergence([0.1, 0.05, 0.01], {"a": [1, 0.5, 0.1]}, ax, orders=(1,)),
    "compare_plane": lambda ax: plot.compare(POINTS, turning(), ax),
    "current_plane": lambda ax: plot.current(turning(), ax),
    "current_line": lambda ax: plot.current(line(), ax),
    "spectrum": lambda ax: plot.spectrum([0.0, 0.5, 3.0, 4.0], ax),
    "spectrum_complex": lambda ax: plot.spectrum(np.array([0.0, 1 + 2j, 1 - 2j]), ax),
    "decay": lambda ax: plot.decay([0.0, 1.0, 2.0], {"a": [1, 0.5, 0.1], "b": [np.inf, 1, 0.2]}, ax, rates=[1.0]),
    "score_field": lambda ax: plot.score_field(lambda x, t: -x, -2, 2, ax),
    "losses": lambda ax: plot.losses(training(), ax),
    "losses_alone": lambda ax: plot.losses(np.geomspace(100.0, 1.0, 300), ax),
}


@pytest.mark.parametrize("name", FIGURES)
def test_returns_labelled_axes(name):
    ax = FIGURES[name](None)
    assert isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    png = io.BytesIO()
    ax.figure.savefig(png)
    assert 2_000 < png.tell() < 400_000


@pytest.mark.parametrize("name", FIGURES)
def test_draws_on_the_given_axes_and_opens_no_figure(name):
    figure, (left, right) = plt.subplots(1, 2)
    assert FIGURES[name](right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


def test_importing_plot_does_not_import_matplotlib():
    code = "import sys, sdesim.plot; sys.exit(any(m in sys.modules for m in ('matplotlib', 'scipy.special')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_paths_draws_n_lines_with_mean_and_deviations():
    some = walks(n_paths=200)
    ax = plot.paths(some, n=20)
    assert len(ax.lines) == 20 + 3
    np.testing.assert_allclose(ax.lines[20].get_ydata(), some.x.mean(axis=0))
    np.testing.assert_allclose(ax.lines[22].get_ydata(), some.x.mean(axis=0) + 2 * some.x.std(axis=0))
    assert "mean of 200 paths" in ax.get_legend_handles_labels()[1]


def test_density_lines_are_the_cell_averages():
    rho = normals([0.3, 1.0])
    ax = plot.density(rho)
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), rho.p[1])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), rho.grid.centers)
    assert ax.get_legend_handles_labels()[1] == ["$t = 0.3$", "$t = 1$"]


def test_maps_have_x_along_the_right_axis():
    ax = plot.density(plane())
    assert ax.get_xlim() == (-2, 2)
    values = ax.collections[0].get_array().reshape(10, 20)  # rows are x₂
    assert np.unravel_index(values.argmax(), values.shape)[1] == 14  # the peak at x₁ = 1
    rho = normals(list(np.linspace(0.1, 1, 20)))
    rho.p[:, 200:] = 0.0  # nothing above x = 2
    ax = plot.density(rho)
    values = ax.collections[0].get_array().reshape(300, 20)  # rows are x, columns times
    np.testing.assert_array_equal(values, rho.p.T)
    assert ax.get_xlim() == pytest.approx((0.1, 1.0))
    assert ax.get_ylim() == pytest.approx((-6, 6))


def test_contours_of_a_map_enclose_their_share():
    from sdesim.plot.canvas import enclosing

    rho = turning()
    levels = enclosing(rho.final, rho.grid.cell_volume)
    for share, level in zip((0.99, 0.9, 0.5), levels, strict=True):
        assert (rho.final[rho.final >= level] * rho.grid.cell_volume).sum() == pytest.approx(share, abs=0.01)
        # of a normal law with variance 1/2: p > (1 − share) of the peak
        assert level == pytest.approx((1 - share) / np.pi, abs=0.01)
    found = plot.density(rho)
    np.testing.assert_allclose(found.collections[1].levels, sorted(levels))
    assert [text.get_text() for text in found.texts] == ["99 %", "90 %", "50 %"]


def test_frames_share_a_scale_and_spread_over_the_times():
    rho = turning(9)
    axes = plot.frames(rho, n=4)
    assert [ax.get_title() for ax in axes] == ["$t = 0$", "$t = 3$", "$t = 5$", "$t = 8$"]
    images = [ax.collections[0] for ax in axes]
    assert len({image.get_clim() for image in images}) == 1
    np.testing.assert_array_equal(images[1].get_array().reshape(40, 48), rho.p[3].T)
    given = plt.subplots(1, 3)[1]
    assert list(plot.frames(rho, given, n=3)) == list(given)
    lines = plot.frames(rho, component=1, n=2)
    np.testing.assert_allclose(lines[1].lines[0].get_ydata(), rho.marginal(1)[8])
    assert len(plot.frames(normals([0.1, 0.2, 0.4]))) == 3


def test_current_arrows_turn_with_the_current():
    ax = plot.current(turning(), n=16)
    (arrows,) = [c for c in ax.collections if hasattr(c, "U")]
    x, y, u, v = arrows.X, arrows.Y, arrows.U, arrows.V
    turn = (x * v - y * u) / (np.hypot(x, y) * np.hypot(u, v))
    assert turn.min() > 0.9  # anticlockwise everywhere: J = 2 p (−y, x)
    p = np.exp(-(x**2) - y**2) / np.pi
    np.testing.assert_allclose(np.hypot(u, v), 2 * p * np.hypot(x, y), rtol=0.15)
    np.testing.assert_allclose(plot.current(line()).lines[1].get_ydata(), line().current())
    still = turning()
    assert plot.current(quiet(still)).get_title(loc="left") == "at rest"


def quiet(rho):
    """The same density without a current."""
    zero = tuple(0.0 * j for j in rho.current())
    return SimpleNamespace(grid=rho.grid, t=np.array([np.inf]), p=rho.p, current=lambda k: zero)


def test_deviations_show_a_wrong_correlation():
    rho = turning()
    text = plot.compare(POINTS, rho).texts[0].get_text()
    assert "within noise" in text
    turned = np.stack([POINTS[:, 0], 0.2 * POINTS[:, 0] + np.sqrt(0.96) * POINTS[:, 1]], axis=1)
    ax = plot.compare(turned, rho)
    assert "beyond noise" in ax.texts[0].get_text()
    edges = ax.collections[0].get_coordinates()
    x, y = (0.25 * (e[1:, 1:] + e[:-1, 1:] + e[1:, :-1] + e[:-1, :-1]) for e in (edges[..., 0], edges[..., 1]))
    z = ax.collections[0].get_array().reshape(x.shape)
    assert np.ma.mean(z[x * y > 0.3]) > 0.3  # more in the quadrants where x and y have one sign
    assert np.ma.mean(z[x * y < -0.3]) < -0.3


def test_spectrum_names_the_gap():
    ax = plot.spectrum(SimpleNamespace(rates=np.array([0.0, 0.25, 3.0])))
    assert ax.get_legend_handles_labels()[1] == ["gap 0.25, relaxation time 4"]
    assert plot.spectrum([0.0]).get_legend() is None
    ax = plot.spectrum(np.array([1e-15, 1 + 2j, 1 - 2j]))
    assert ax.get_ylabel() == "frequency, Im"
    assert "gap 1," in ax.get_legend_handles_labels()[1][0]


def test_decay_draws_references_of_the_given_rates():
    t = np.linspace(0, 3, 31)
    ax = plot.decay(t, {"one": np.exp(-2 * t), "two": np.where(t < 1, np.inf, np.exp(-t))}, rates=[2.0])
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["one", "two", "rate 2"]
    assert len(ax.lines[1].get_xdata()) == 21
    np.testing.assert_allclose(ax.lines[2].get_ydata() / ax.lines[0].get_ydata(), 1.5)
    assert ax.get_yscale() == "log"


def test_compare_shows_histogram_density_and_verdict():
    rho = normals([1.0])
    ax = plot.compare(SAMPLES, rho)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["20 000 samples", "± 2 sd of chance", "density at $t = 1$"]
    text = ax.texts[0].get_text()
    assert "L1 0.0" in text
    assert "floor" in text
    assert "within noise" in text
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), rho.final)
    bars = ax.patches[0].get_data()
    assert np.sum(bars.values * np.diff(bars.edges)) == pytest.approx(1)
    assert "beyond noise" in plot.compare(1.1 * SAMPLES, rho).texts[0].get_text()


def test_convergence_states_the_slopes():
    h = 2.0 ** -np.arange(3, 9)
    ax = plot.convergence(h, {"one": 3 * h, "half": h**0.5}, orders=(0.5,))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert ax.get_legend_handles_labels()[1] == ["one: slope 1.00", "half: slope 0.50", "order 0.5"]
    x, y = ax.lines[2].get_data()
    assert np.log(y[1] / y[0]) / np.log(x[1] / x[0]) == pytest.approx(0.5)


def test_score_arrows_point_along_the_score():
    target = SimpleNamespace(score=lambda x: -x, log_density=lambda x: -0.5 * (x**2).sum(axis=1))
    for score in (target, lambda x, t: -x):
        arrows = plot.score_field(score, (-2, -1), (2, 1), n=12).collections[-1]
        assert arrows.N == 12 * 6
        along = -(arrows.U * arrows.X + arrows.V * arrows.Y)
        assert np.all(along > 0.999 * np.hypot(arrows.U, arrows.V) * np.hypot(arrows.X, arrows.Y))
        assert np.hypot(arrows.U, arrows.V).max() <= 4 / 12 * (1 + 1e-12)  # no arrow reaches past its cell


def test_score_is_asked_at_the_given_time():
    seen = []

    def score(x, t):
        seen.append(t)
        return np.zeros_like(x)

    plot.score_field(score, -1, 1, t=0.7)
    assert seen == [0.7]


def test_losses_are_the_running_mean_and_the_best_validation():
    fit = training()
    ax = plot.losses(fit, smooth=100)
    batches, mean, held, best = ax.lines
    np.testing.assert_array_equal(batches.get_ydata(), fit.losses)
    assert mean.get_xdata()[0] == 100  # the first step with as many before it
    np.testing.assert_allclose(mean.get_ydata()[0], fit.losses[:100].mean())
    np.testing.assert_allclose(mean.get_ydata()[-1], fit.losses[-100:].mean())
    np.testing.assert_array_equal(held.get_xydata(), fit.validation)
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (400, 1.01)
    assert ax.get_yscale() == "linear"
    assert plot.losses(np.geomspace(1e4, 1.0, 300)).get_yscale() == "log"
    assert plot.losses(np.linspace(1.0, -3.0, 30)).get_yscale() == "linear"  # implicit losses are negative
    assert len(plot.losses([2.0]).lines) == 2


def test_images_are_laid_out_row_by_row():
    x = np.zeros((5, 2, 3))
    x[3] = 1.0
    ax = plot.images(x, columns=3)
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert np.all(sheet[3:5, 0:3] == 1)
    assert np.all(sheet[:2, :3] == 0)
    assert plot.images(np.random.default_rng(3).random((4, 16))).images[0].get_array().shape == (9, 9)
    assert plot.images(np.zeros((4, 5, 5, 3))).images[0].get_array().shape == (11, 11, 3)
    flat = np.arange(36.0).reshape(2, 18)
    assert plot.images(flat, shape=(2, 3, 3), columns=1).images[0].get_array().shape == (5, 3, 3)
    sheet = plot.images(flat, shape=(6, 3), columns=1).images[0].get_array()
    np.testing.assert_allclose(sheet[:6] * 35, flat[0].reshape(6, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.paths(walks(n_times=1)), "simulate with save='all'"),
        (lambda: plot.paths(walks(3)), "paths have 3 components; choose one with component=0"),
        (lambda: plot.density(normals([1.0]), style="maps"), "did you mean 'map'"),
        (lambda: plot.convergence([0.1], [0.1]), "step_sizes must hold >= 2 different positive numbers"),
        (
            lambda: plot.convergence([0.1, 0.2], {"a": [0.1]}),
            r"errors\['a'\] has shape \(1,\), expected \(2,\)",
        ),
        (lambda: plot.convergence([0.1, 0.2], [0.1, 0.0]), "errors must be > 0.*index 1"),
        (lambda: plot.score_field(lambda x, t: x, 1, -1), "lower must be < upper"),
        (
            lambda: plot.score_field(lambda x, t: x[:, 0], -1, 1),
            r"returned shape \(484,\), expected \(484, 2\)",
        ),
        (lambda: plot.spectrum([0.0, np.nan]), "modes must hold finite rates"),
        (lambda: plot.decay([0.0, 1.0], [1.0]), r"curves\[''\] has shape \(1,\), expected \(2,\)"),
        (lambda: plot.decay([0.0, 1.0], {"a": [0.0, np.inf]}), r"curves\['a'\] must be > 0 and finite somewhere"),
        (lambda: plot.frames(turning(3), plt.subplots(1, 2)[1], n=3), "axes must hold one for each of the 3 frames"),
        (lambda: plot.losses([]), r"losses has shape \(0,\), expected \(n,\)"),
        (lambda: plot.images(np.zeros((2, 15)), shape=(3, 4)), r"not of pictures of shape \(3, 4\)"),
        (lambda: plot.images(np.zeros((2, 15))), "not of square pictures"),
        (lambda: plot.images(np.zeros((2, 4, 4, 2))), r"expected \(n, height, width\[, 3\]\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
