"""The table of a sampler says what the sampler does: run with NumPy, it gives the samples of ``sample``."""

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import stream
from sdesim.core.normals import DRAWS
from sdesim.cuda.program import CENTRE, FIRST, KEPT, ONE, STATE
from sdesim.generate import samplers, stages
from sdesim.generate.linear import Noised
from sdesim.score.head import KINDS, Head

N, DIM, SEED, PATH = 7, 5, 11, 2**33 + 3
RNG = np.random.default_rng(0)
CENTRES, WEIGHTS = RNG.normal(size=DIM), RNG.normal(size=4000)
VP = sde.VariancePreserving()


def network(process, kind="edm", activation="silu", hidden=(12, 9)):
    net = sde.ScoreMLP(DIM, hidden, n_frequencies=3, activation=activation)
    return net.with_parameters(
        (0.4 * WEIGHTS[: net.layout.size]).astype(np.float32), head=Head(kind, process, CENTRES, 1.3, process.t_min)
    )


def forward(net, u, level):
    """The network itself in float64."""
    phi = {
        "silu": lambda z: 0.5 * z * (1.0 + np.tanh(0.5 * z)),
        "tanh": np.tanh,
        "softplus": lambda z: np.logaddexp(0.0, z),
    }
    angle = 2.0 * np.pi * level * net.frequencies.astype(np.float64)
    h = np.hstack([u, np.tile(np.hstack([np.sin(angle), np.cos(angle)]), (len(u), 1))])
    for number, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        h = h @ w.astype(np.float64) + b
        h = phi[net.activation](h) if number + 1 < len(net.weights) else h
    return h


def interpreted(net, program):
    """A program run by NumPy, with the normals of the stream."""
    x, kept = np.zeros((N, DIM)), np.zeros((N, DIM))
    centre, u = np.asarray(net.head.centre), None

    def normal(purpose, block, lane):
        draws = np.empty((DRAWS[np.dtype(np.float32)], N, DIM), np.float32)
        stream.fill_steps(draws, PATH, int(block), int(purpose), SEED)
        return draws[lane]

    for k in range(program.n_steps):
        outputs, z = [], [normal(*place) for place in program.draws[k]]
        count = program.counts[k]

        def combined(row, given=x, outputs=outputs, z=z, held=kept):
            total = row[STATE] * given + row[KEPT] * held + row[CENTRE] * centre + row[ONE]
            for f, size in zip(outputs, row[FIRST:], strict=False):
                total = total + size * f
            for draw, size in zip(z, row[FIRST + program.most :], strict=False):  # none in what is kept
                total = total + size * draw
            return total

        for s in range(count + 1):
            if s > 0 or k == 0 or program.entry:
                y = x + combined(program.points[k, s].astype(np.float64))
                c, alpha, beta = program.inputs[k, s].astype(np.float64)
                u = c * (y - alpha * centre - beta)
            if s < count:
                outputs.append(forward(net, u, program.levels[k, s]))
        if program.kept is not None:
            kept = combined(program.kept[k].astype(np.float64))
        x = y
    return x


def program_of(process, net, **options):
    """The program that ``sample`` would run, and the samples of the CPU."""
    caught = {}

    def catch(plan, n, first_path, advance_of, **_):
        caught["program"] = stages.program(
            plan.noised, net.head, advance_of, plan.times, plan.denoise, np.dtype(np.float32)
        )
        return None

    patch = pytest.MonkeyPatch()
    patch.setattr(samplers.gpu, "draw", catch)
    patch.setattr(samplers.gpu, "check", lambda *_, **__: None)
    try:
        sde.sample(process, net, N, seed=SEED, first_path=PATH, device="cuda", **options)
    finally:
        patch.undo()
    return caught["program"], sde.sample(process, net, N, seed=SEED, first_path=PATH, **options)


METHODS = [
    {}, {"denoise": False}, {"scheme": "heun"}, {"scheme": "sra"}, {"method": "probability_flow"},
    {"method": "probability_flow", "scheme": "rk4"}, {"method": "edm_heun"}, {"method": "edm_heun", "churn": 4.0},
    {"method": "edm_heun", "t_end": 0.0}, {"method": "dpm_solver"}, {"method": "dpm_solver", "scheme": "sde_2m"},
    {"method": "ancestral"}, {"method": "predictor_corrector", "n_corrector": 2}, {"method": "annealed_langevin"},
]  # fmt: skip


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_a_table_is_its_method(options):
    net = network(VP)
    program, wanted = program_of(VP, net, n_steps=6, **options)
    # float32 all along on the CPU, float32 coefficients here
    np.testing.assert_allclose(interpreted(net, program), wanted, atol=2e-5 * abs(wanted).max(), rtol=0)


PROCESSES = [sde.VarianceExploding(0.01, 50.0), sde.EDM(0.002, 80.0), sde.SubVariancePreserving(), sde.Cosine()]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_a_table_is_its_process(process):
    net = network(process)
    program, wanted = program_of(process, net, n_steps=6)
    np.testing.assert_allclose(interpreted(net, program), wanted, atol=2e-5 * abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["silu", "tanh", "softplus"])
def test_a_table_is_its_head(kind, activation):
    net = network(VP, kind, activation)
    program, wanted = program_of(VP, net, n_steps=3, method="dpm_solver", t_end=0.05)
    np.testing.assert_allclose(interpreted(net, program), wanted, atol=2e-5 * abs(wanted).max(), rtol=0)


def test_a_mean_that_does_not_vanish():
    process = sde.OrnsteinUhlenbeck(theta=1.0, mu=0.7, sigma=1.2)
    net = sde.ScoreMLP(DIM, (12, 9), n_frequencies=3)
    net = net.with_parameters(
        (0.4 * WEIGHTS[: net.layout.size]).astype(np.float32), head=Head("edm", process, CENTRES, 1.3, 1e-3)
    )
    for options in ({}, {"method": "dpm_solver"}, {"method": "edm_heun"}, {"method": "annealed_langevin"}):
        program, wanted = program_of(process, net, n_steps=5, horizon=2.0, t_end=0.01, **options)
        np.testing.assert_allclose(interpreted(net, program), wanted, atol=2e-5 * abs(wanted).max(), rtol=0)


def test_a_broken_table_is_noticed():
    net = network(VP)
    program, wanted = program_of(VP, net, n_steps=6, method="dpm_solver")
    for table, index in (("points", (3, 1, FIRST)), ("kept", (3, STATE)), ("inputs", (3, 1, 0)), ("levels", (3, 0))):
        values = getattr(program, table)
        before = values[index]
        values[index] = 1.01 * before
        assert abs(interpreted(net, program) - wanted).max() > 1e-4 * abs(wanted).max(), table
        values[index] = before


def test_what_a_step_costs():
    net = network(VP)
    shapes = {
        "euler": ({}, 1, 1, False, False), "heun": ({"method": "edm_heun"}, 2, 1, False, False),
        "2m": ({"method": "dpm_solver"}, 1, 1, True, False),
        "churn": ({"method": "edm_heun", "churn": 4.0}, 2, 1, False, True),
    }  # fmt: skip
    for options, most, n_draws, kept, entry in shapes.values():
        program, _ = program_of(VP, net, n_steps=4, **options)
        assert (program.most, program.n_draws, program.kept is not None, program.entry) == (most, n_draws, kept, entry)
        assert program.n_steps == 6
        assert np.isfinite(program.points).all()


def test_too_many_evaluations_and_too_long_a_memory():
    net = network(VP)
    with pytest.raises(ValueError, match="takes steps of at most 32 evaluations; lower n_corrector"):
        program_of(VP, net, n_steps=2, method="predictor_corrector", n_corrector=40)

    def of_two_steps_ago(rows):
        held = []

        def step(x, k, t, later):
            held.append(rows.denoised(x, t))
            return held[max(0, len(held) - 3)] + x

        return step

    def with_the_last_noise(rows):
        held = []

        def step(x, k, t, later):
            held.append(rows.normals(k))
            return rows.denoised(x, t) + (held[-2] if k else 0.0)

        return step

    for method, message in ((of_two_steps_ago, "look back further than one"), (with_the_last_noise, "takes noise of")):
        with pytest.raises(ValueError, match=message):
            stages.program(Noised(VP), net.head, method, np.linspace(1.0, 0.1, 5), False, np.float32)
