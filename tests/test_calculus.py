"""Itô, Stratonovich and ∇·a against derivatives done by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdesim.processes import calculus
from sdesim.processes.custom import ito, stratonovich
from sdesim.processes.geometric import GeometricBrownian
from sdesim.processes.ornstein_uhlenbeck import OrnsteinUhlenbeck
from test_processes import compiled_values


def test_stratonovich_geometric_motion_has_the_ito_drift():
    mu, sigma, x = 0.3, 0.4, np.array([0.5, 1.0, 2.0])
    for slope in (None, lambda x, t, sigma: sigma):
        process = stratonovich(
            lambda x, t, mu: mu * x, lambda x, t, sigma: sigma * x, diffusion_dx=slope, mu=mu, sigma=sigma
        )
        np.testing.assert_allclose(process.drift(x, 0.0), mu * x)
        np.testing.assert_allclose(process.ito_drift(x, 0.0), (mu + 0.5 * sigma**2) * x, rtol=1e-9)
        np.testing.assert_allclose(process.stratonovich_drift(x, 0.0), mu * x)
    np.testing.assert_allclose(
        GeometricBrownian(mu, sigma).stratonovich_drift(x, 0.0), (mu - 0.5 * sigma**2) * x, rtol=1e-12
    )


def test_additive_noise_induces_no_drift():
    process = OrnsteinUhlenbeck(1.0, 0.5, 0.7)
    assert process.noise_induced_drift(0.3, 0.0) == 0.0
    assert process.diffusion_divergence(np.ones(3), 0.0) == 0.0  # a number stands for all elements
    assert process.stratonovich_drift(0.3, 0.0) == process.drift(0.3, 0.0)


def test_divergence_on_the_line():
    process = ito(lambda x, t: -x, lambda x, t: np.sin(x) + 2.0)
    x = np.linspace(-2.0, 2.0, 9)
    np.testing.assert_allclose(process.diffusion_divergence(x, 0.0), 2.0 * (np.sin(x) + 2.0) * np.cos(x), rtol=1e-8)


@pytest.mark.parametrize("given_slope", [False, True])
def test_diagonal_noise_in_two_dimensions(given_slope):
    slope = (lambda x, t: (2.0 * x[0] * x[1], x[0])) if given_slope else None
    process = ito(lambda x, t: (x[0], x[1]), lambda x, t: (x[0] ** 2 * x[1], x[0] * x[1]), dim=2, diffusion_dx=slope)
    x = (np.array([0.5, 1.2]), np.array([-0.3, 0.8]))
    g = (x[0] ** 2 * x[1], x[0] * x[1])
    s = (2.0 * x[0] * x[1], x[0])
    for i in range(2):
        np.testing.assert_allclose(process.noise_induced_drift(x, 0.0)[i], 0.5 * g[i] * s[i], rtol=1e-8)
        np.testing.assert_allclose(process.diffusion_divergence(x, 0.0)[i], 2.0 * g[i] * s[i], rtol=1e-8)


def test_a_number_stands_for_all_components():
    process = ito(lambda x, t: (x[0], x[1]), lambda x, t: 2.0, dim=2)
    assert process.noise_induced_drift((1.0, 2.0), 0.0) == (0.0, 0.0)
    assert process.diffusion_divergence((1.0, 2.0), 0.0) == (0.0, 0.0)


entries = st.floats(-2.0, 2.0).map(lambda v: round(v, 3))


@settings(max_examples=40, deadline=None)
@given(
    constant=st.lists(entries, min_size=6, max_size=6),
    linear=st.lists(entries, min_size=12, max_size=12),
    point=st.lists(entries, min_size=2, max_size=2),
)
def test_general_noise_that_is_linear_in_the_state(constant, linear, point):
    # G_ik = c_ik + Σ_j D_ikj x_j with 2 components and 3 Wiener processes: everything is known by hand
    c, slopes, x = np.reshape(constant, (2, 3)), np.reshape(linear, (2, 3, 2)), np.array(point)

    def rows(x, t, c, slopes):
        return tuple(
            tuple(c[i, k] + slopes[i, k, 0] * x[0] + slopes[i, k, 1] * x[1] for k in range(3)) for i in range(2)
        )

    process = ito(lambda x, t: (x[0], x[1]), rows, dim=2, noise="general", c=c, slopes=slopes)
    g = c + slopes @ x
    induced = 0.5 * np.einsum("ikj,jk->i", slopes, g)
    divergence = np.einsum("ikj,jk->i", slopes, g) + np.einsum("ik,jkj->i", g, slopes)
    assert calculus.noise_dim(process) == 3
    np.testing.assert_allclose(process.noise_induced_drift(tuple(x), 0.0), induced, atol=2e-8)
    np.testing.assert_allclose(process.diffusion_divergence(tuple(x), 0.0), divergence, atol=2e-8)


@pytest.mark.slow
def test_the_terms_compile():
    general = ito(
        lambda x, t: (x[0], x[1]),
        lambda x, t, c: ((c * x[1], 0.2), (0.1, x[0] * x[0])),
        dim=2,
        noise="general",
        c=0.7,
    )
    diagonal = ito(lambda x, t: (x[0], x[1]), lambda x, t: (x[0] * x[1], x[1]), dim=2)
    number = ito(lambda x, t: (x[0], x[1]), lambda x, t: 0.3, dim=2)
    x = np.random.default_rng(0).uniform(0.3, 1.5, size=(2, 5))
    for process in (general, diagonal, number):
        for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 2e-2)):
            for term in (calculus.noise_induced_drift, calculus.diffusion_divergence):
                got = compiled_values(_WithTerm(process, term(process, dtype)), "term", x, dtype, "tuple", 2)
                expected = term(process)(_view(process), tuple(x), 0.3)
                expected = np.stack([np.broadcast_to(e, 5) for e in expected])
                np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


class _WithTerm:
    """A process seen through one formula."""

    def __init__(self, process, term):
        self.process, self.term, self.dim = process, term, process.dim

    def fields(self):
        return self.process.fields()

    def formula(self, name):
        return self.term


def _view(process):
    return type("View", (), process.fields())
