"""Score networks: every derivative against finite differences, the algebra of the heads, the same bits, files."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdesim as sde
from sdesim.core import blas
from sdesim.score import activations
from sdesim.score.head import KINDS, Head, Level

VP = sde.VariancePreserving()
DEPTHS = [(9,), (8, 11), (7, 8, 9)]


def network(hidden=(8, 11), kind="edm", *, dim=3, dtype=np.float64, seed=3, **options):
    """A network with a head and no weight at its initial value."""
    net = sde.ScoreMLP(dim, hidden, dtype=dtype, seed=seed, **options)
    noise = np.random.default_rng(seed).standard_normal(net.parameters.size)
    head = Head(kind, VP, np.linspace(0.1, 0.3, dim), 1.7, 1e-3)
    return net.with_parameters((net.parameters + 0.2 * noise).astype(dtype), head=head)


def points(n, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)), rng.uniform(0.05, 1.0, n), rng.standard_normal((n, dim))


def jacobian(net, x, t, h=1e-5):
    """J[:, i, j] = ∂sᵢ/∂xⱼ by central differences."""
    columns = [(net(x + h * e, t) - net(x - h * e, t)) / (2 * h) for e in np.eye(x.shape[1])]
    return np.stack(columns, axis=2)


# ---- activations


@pytest.mark.parametrize("name", activations.NAMES)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 3e-6), (np.float64, 1e-14)])
def test_activations_and_their_derivatives(name, dtype, bound):
    z = np.linspace(-30, 30, 4096).reshape(2, 2048)
    s, th = 1 / (1 + np.exp(-z)), np.tanh(z)
    expected = {
        "silu": (z * s, s + z * s * (1 - s), s * (1 - s) * (2 + z * (1 - 2 * s))),
        "tanh": (th, 1 - th**2, -2 * th * (1 - th**2)),
        "softplus": (np.logaddexp(0, z), s, s * (1 - s)),
    }[name]
    shift = np.linspace(-1, 1, 2048)
    h, d1, d2 = ((z - shift).astype(dtype) if k == 0 else np.full(z.shape, 7.0, dtype) for k in range(3))
    found = activations.kernels(name, np.dtype(dtype))
    found.curvature(h, shift.astype(dtype), d1, d2, 0, 2, 0, 2048)
    for value, wanted in zip((h, d1, d2), expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=bound, rtol=bound)
    # the shorter kernels give the same bits, and touch their tile only
    for kernel, outs in ((found.value, ()), (found.slope, (d1,))):
        again, slope = (z - shift).astype(dtype), np.full(z.shape, 7.0, dtype)
        kernel(again, shift.astype(dtype), *(slope for _ in outs), 1, 2, 512, 1024)
        assert (again[1, 512:1024] == h[1, 512:1024]).all()
        assert (again[0] == (z - shift).astype(dtype)[0]).all()
        assert (again[1, 1024:] == (z - shift).astype(dtype)[1, 1024:]).all()
        for wanted in outs:
            assert (slope[1, 512:1024] == wanted[1, 512:1024]).all()
            assert (slope[0] == 7.0).all()


@pytest.mark.parametrize("name", activations.NAMES)
def test_activations_at_the_ends_of_the_numbers(name):
    h = np.array([[-1e30, -200.0, 0.0, 200.0, 1e30]], np.float32)
    d1, d2 = np.empty_like(h), np.empty_like(h)
    activations.kernels(name, h.dtype).curvature(h, np.zeros(5, np.float32), d1, d2, 0, 1, 0, 5)
    assert not np.isnan(np.stack([h, d1])).any()
    assert np.isfinite(d2[0, 1:4]).all()


# ---- derivatives of a network


@pytest.mark.parametrize("hidden", DEPTHS)
@pytest.mark.parametrize("activation", activations.NAMES)
def test_derivatives_in_x_against_central_differences(hidden, activation):
    net = network(hidden, activation=activation)
    x, times, v = points(300)  # more than a block, not a multiple of it
    for t in (0.4, times):
        J = jacobian(net, x, t)
        scale = abs(J).max()
        s, along = net.jacobian_vector(x, t, v)
        _, back = net.vector_jacobian(x, t, v)
        np.testing.assert_allclose(along, np.einsum("nij,nj->ni", J, v), atol=1e-7 * scale)
        np.testing.assert_allclose(back, np.einsum("nij,ni->nj", J, v), atol=1e-7 * scale)
        np.testing.assert_allclose(net.divergence(x, t), np.trace(J, axis1=1, axis2=2), atol=1e-7 * scale)
        assert (s == net(x, t)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_has_its_derivatives(kind):
    net = network((8, 11), kind)
    x, t, v = points(20)
    J = jacobian(net, x, t)
    np.testing.assert_allclose(net.jacobian_vector(x, t, v)[1], np.einsum("nij,nj->ni", J, v), atol=1e-7 * abs(J).max())
    np.testing.assert_allclose(net.divergence(x, t), np.trace(J, axis1=1, axis2=2), atol=1e-7 * abs(J).max())


@pytest.mark.parametrize("hidden", [(64,), (48, 64)])
def test_exact_divergence_at_784_dimensions(hidden):
    net = network(hidden, dim=784, dtype=np.float32)
    net = net.with_parameters(net.parameters, head=Head(centre=np.zeros(784)))
    double = net.astype(np.float64)
    x, _, _ = points(5, 784)
    traces = []
    for row in (x[0], x[4]):  # the chain rule, matrix by matrix; a network without noise levels sees c = t = 0.3
        angle = 2 * np.pi * 0.3 * double.frequencies
        h, product = np.concatenate([row, np.sin(angle), np.cos(angle)]), np.eye(784, 784 + 16)
        for weights, bias in zip(double.weights[:-1], double.biases[:-1], strict=True):
            z = h @ weights + bias
            s = 1 / (1 + np.exp(-z))
            h, product = z * s, (product @ weights) * (s + z * s * (1 - s))
        traces.append(np.trace(product @ double.weights[-1]))
    np.testing.assert_allclose(net.divergence(x.astype(np.float32), 0.3)[[0, 4]], traces, rtol=2e-5)
    np.testing.assert_allclose(double.divergence(x, 0.3)[[0, 4]], traces, rtol=1e-11)


def test_hutchinson_is_unbiased_with_the_known_variance():
    net = network((10, 12, 9), dim=6)
    x, _, _ = points(1, 6)
    x = np.repeat(x, 20_000, axis=0)
    found = net.divergence(x, 0.3, method="hutchinson", seed=5)
    J = jacobian(net, x[:1], 0.3)[0]
    symmetric = 0.5 * (J + J.T)
    variance = 2 * ((symmetric**2).sum() - (np.diag(symmetric) ** 2).sum())
    error = np.sqrt(variance / len(x))
    assert abs(found.mean() - np.trace(J)) < 4 * error
    assert abs(found.var() / variance - 1) < 0.1
    assert abs(found.mean() + np.trace(J)) > 10 * error  # the wrong sign would be seen


# ---- heads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("process", [VP, sde.VarianceExploding(), sde.OrnsteinUhlenbeck(1.0, 0.5, 1.2), Level(0.3)])
def test_a_network_that_learns_its_target_is_the_score_of_the_noise(kind, process):
    centre, rng = np.array([1.0, -2.0]), np.random.default_rng(0)
    head = Head(kind, process, centre, 1.3, 1e-3)
    t = np.geomspace(1e-3, 1.0, 50)
    x, e = rng.standard_normal((50, 2)) + centre, rng.standard_normal((50, 2))
    alpha, beta, sigma = (value[:, None] for value in head.noise(t))
    y = alpha * x + beta + sigma * e - head.shift(t)
    a, b, _, _ = (value[:, None] for value in head.scalings(t))
    of_x, of_e = (value[:, None] for value in head.regression(t))
    s = a * y + b * (of_x * (x - centre) + of_e * e)
    assert (abs(s + e / sigma) <= 1e-9 * abs(e / sigma).max(axis=1, keepdims=True)).all()


def test_edm_and_velocity_start_at_the_score_of_a_gaussian():
    for kind in ("edm", "velocity"):
        net = network(kind=kind, zero_output=True)
        net = net.with_parameters(np.zeros(net.parameters.size))
        x, t, _ = points(40)
        exact = sde.marginal_score(VP, sde.targets.Gaussian(net.head.centre, 1.7**2 * np.eye(3)))
        np.testing.assert_allclose(net(x, t), exact(x, t), rtol=1e-10)


def test_inputs_and_targets_of_edm_have_unit_variance():
    rng = np.random.default_rng(1)
    x, e = 1.7 * rng.standard_normal(200_000), rng.standard_normal(200_000)
    head = Head("edm", sde.VarianceExploding(), 0.0, 1.7, 1e-5)
    for t in (0.01, 0.3, 0.6, 1.0):
        time = np.array(t)
        of_x, of_e = head.regression(time)
        alpha, _, sigma = head.noise(time)
        assert abs(np.var(of_x * x + of_e * e) - 1) < 0.02
        assert abs(np.var(head.scalings(time)[2] * (alpha * x + sigma * e)) - 1) < 0.02


def test_times_below_t_min_are_taken_as_t_min():
    net = network()
    x, _, _ = points(4)
    assert np.isfinite(net(x, 0.0)).all()
    assert (net(x, 0.0) == net(x, 1e-3)).all()


# ---- shapes, types and bits


@given(n=st.integers(1, 600), dim=st.integers(1, 4), single=st.booleans(), shared=st.booleans())
@settings(max_examples=25, deadline=None)
def test_shapes_and_types(n, dim, single, shared):
    net = network(dim=dim, dtype=np.float32)
    x = np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32 if single else np.float64)
    t = 0.5 if shared else np.full(n, 0.5)
    s = net(x, t)
    assert s.shape == x.shape
    assert s.dtype == x.dtype
    assert np.isfinite(s).all()
    assert net.divergence(x, t).shape == (n,)
    np.testing.assert_allclose(s, net(x, 0.5 if not shared else np.full(n, 0.5)), rtol=2e-4, atol=2e-4)


def test_one_dimension_takes_flat_points_and_one_point_takes_a_vector():
    net, x = network(dim=1), np.linspace(-1, 1, 7)
    assert (net(x, 0.2) == net(x[:, None], 0.2)[:, 0]).all()
    assert net.divergence(x, 0.2).shape == (7,)
    assert network()(np.zeros(3), 0.2).shape == (3,)


def test_a_row_has_the_same_bits_in_any_company():
    net = network((128, 96), dtype=np.float32, dim=5)
    x, t, _ = points(1000, 5)
    whole = net(x, t)
    for n in (1, 7, 255, 256, 257, 700):
        assert (net(x[:n], t[:n]) == whole[:n]).all()
    assert (net(x[256:400], t[256:400]) == whole[256:400]).all()


def test_several_threads_at_once_give_the_same_bits_and_leave_blas_as_it_was():
    import threadpoolctl

    net = network((200, 200), dtype=np.float32, dim=4)
    x, t, _ = points(2000, 4)
    expected, found = net(x, t), [None] * 4

    def work(k):
        found[k] = net(x, t)

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        net(x, t)
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert all((value == expected).all() for value in found)
    assert set(pools) == {2}


def test_gaps_between_the_rows_of_weights_change_no_bit():
    """Rows of 1024 bytes, or more multiples of 512, meet in the cache; the copy has its rows elsewhere, no other."""
    rng = np.random.default_rng(0)
    for width, dtype, gap in ((512, "f4", True), (384, "f4", True), (128, "f8", True), (128, "f4", False),
                              (500, "f4", False)):  # fmt: skip
        weights = rng.standard_normal((96, width)).astype(dtype)
        found = blas.staggered(weights)
        assert (found is not weights) == gap
        assert not gap or found.strides[0] % 512 == 64
        assert (found == weights).all()
        x = rng.standard_normal((256, 96)).astype(dtype)
        assert (x @ found == x @ weights).all()


def test_networks_do_not_change():
    net = network()
    with pytest.raises(ValueError, match="read-only"):
        net.parameters[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        net.weights[0][0, 0] = 1.0
    other = net.with_parameters(net.parameters * 2)
    assert not (other.parameters == net.parameters).all()
    assert sum(w.size for w in net.weights) + sum(b.size for b in net.biases) == net.parameters.size


def test_the_seed_makes_the_weights():
    a, b, c = (sde.ScoreMLP(2, (16,), seed=seed) for seed in (1, 1, 2))
    assert (a.parameters == b.parameters).all()
    assert not (a.parameters == c.parameters).all()
    assert (sde.ScoreMLP(2, (16,), zero_output=True)(np.ones((3, 2)), 0.1) == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sde.ScoreMLP(0), "dim must be >= 1"),
        (lambda: sde.ScoreMLP(2, 64), "hidden must be a sequence"),
        (lambda: sde.ScoreMLP(2, ()), "hidden must name >= 1 layer"),
        (lambda: sde.ScoreMLP(2, (8, 0)), r"hidden\[1\] must be >= 1"),
        (lambda: sde.ScoreMLP(2, activation="relu"), "activation must be one of"),
        (lambda: sde.ScoreMLP(2, time="sine"), "time must be one of"),
        (lambda: sde.ScoreMLP(2, (100_000, 100_000)), "parameters, more than"),
        (lambda: network()(np.zeros((4, 2)), 0.1), r"x has shape \(4, 2\), expected \(n, 3\)"),
        (lambda: network()(np.zeros((4, 3)), np.zeros(5)), r"t has shape \(5,\), expected a number or \(4,\)"),
        (lambda: network().jacobian_vector(np.zeros((4, 3)), 0.1, np.zeros(3)), r"v has shape \(3,\)"),
        (lambda: network()(np.zeros((4, 3), complex), 0.1), "real numbers"),
        (lambda: network().divergence(np.zeros((4, 3)), 0.1, method="guess"), "method must be one of"),
        (lambda: network().with_parameters(np.zeros(3)), "parameters has shape"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---- a network is a score like any other


def test_langevin_and_reverse_processes_take_a_network():
    net = network(dim=2, dtype=np.float32)
    chain = sde.simulate(sde.Langevin(net), np.zeros(2), (0.0, 0.1), n_steps=5, n_paths=700, seed=1, workers=2)
    alone = sde.simulate(sde.Langevin(net), np.zeros(2), (0.0, 0.1), n_steps=5, n_paths=700, seed=1, workers=1)
    assert (chain.final == alone.final).all()
    for kind in (sde.ReverseProcess, sde.ProbabilityFlow):
        drift = kind(VP, net, 1.0).drift(np.ones((4, 2)), 0.6)
        share = 1.0 if kind is sde.ReverseProcess else 0.5
        expected = -VP.drift(np.ones((4, 2)), 0.4) + share * VP.diffusion(0, 0.4) ** 2 * net(np.ones((4, 2)), 0.4)
        np.testing.assert_allclose(drift, expected, rtol=1e-5)
