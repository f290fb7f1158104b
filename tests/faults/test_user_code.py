"""Errors in a user's formulas: F21 an exception, F24 an index out of range; and the mode to look for them in.

A compiled formula cannot raise, which is said before anything runs; it reads what lies behind an array. With
``debug=True`` formulas run as plain Python on the same noise: the error is the user's own, with path, step and state.
"""

import math
import pickle
import traceback

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import cache
from sdesim.errors import CompileError
from sdesim.integrate import batch

TABLE = np.arange(4.0)
RUN = {"n_steps": 10, "n_paths": 200, "seed": 1, "first_path": 512}  # one block


def fragile(x, t):
    if x > 0.9:
        raise LookupError("no drift beyond 0.9")
    return -x


def beyond(x, t):
    return -x * TABLE[int(t * 10)]


def notes(error):
    return "\n".join(getattr(error, "__notes__", []))


def unit(x, t):
    return 1.0


def first_beyond(bound):
    """The first path, in the order of steps and paths, that is found beyond a bound, with its step and state."""
    x = sde.simulate(sde.OrnsteinUhlenbeck(1.0, 0.0, 1.0), 0.0, (0, 1), save="all", **RUN).x
    path, step = min(np.argwhere(x > bound).tolist(), key=lambda place: (place[1], place[0]))
    return 512 + path, step, x[path, step]


# ---- F21


def test_a_compiled_formula_that_raises_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(cache, "load", None)  # nothing is compiled
    with pytest.raises(CompileError, match=r"fragile raises or asserts.*return nan instead.*debug=True"):
        sde.simulate(sde.ito(fragile, unit), 0.0, (0, 1), **RUN)


def test_in_debug_mode_the_error_is_the_users_own_with_path_step_and_state():
    path, step, state = first_beyond(0.9)
    with pytest.raises(LookupError, match=r"no drift beyond 0\.9") as caught:
        sde.simulate(sde.ito(fragile, unit), 0.0, (0, 1), debug=True, **RUN)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fragile"
    assert f"drift was evaluated at x = {state:g}, t = {step / 10:g}" in notes(caught.value)
    assert f"in the step from {step} to {step + 1} (t = {step / 10:g}) of path {path}" in notes(caught.value)


def test_whole_array_steps_say_the_step_and_the_paths():
    def late(x, t):
        if t > 0.55:
            raise LookupError("no drift beyond 0.55")
        return -x

    with pytest.raises(LookupError) as caught:
        sde.simulate(sde.ito(late, unit, compiled=False), 0.0, (0, 1), **RUN)
    assert "in the step from 6 to 7 (t = 0.6) of paths 512 to 711" in notes(caught.value)


def test_an_error_at_the_first_look_says_where():
    with pytest.raises(ZeroDivisionError) as caught:
        sde.simulate(sde.ito(lambda x, t: 1.0 / int(t), unit), 0.25, (0, 1), **RUN)
    assert "drift was evaluated at x0 = 0.25, t0 = 0, before the first step" in notes(caught.value)


# ---- F24


def test_an_index_out_of_range_is_found_in_debug_mode():
    with pytest.raises(IndexError, match="index 4 is out of bounds") as caught:
        sde.simulate(sde.ito(beyond, unit), 0.0, (0, 1), debug=True, **RUN)
    assert "t = 0.4" in notes(caught.value)
    assert "in the step from 4 to 5" in notes(caught.value)


# ---- the mode itself

PROCESSES = {
    "branches": (sde.ito(lambda x, t: -1.0 if x > 0 else math.exp(x), lambda x, t: 0.3), 0.0, "euler_maruyama"),
    "diagonal": (sde.GeometricBrownian(0.1, 0.3), 1.0, "milstein"),
    "general": (
        sde.ito(lambda x, t: (-x[1], x[0]), lambda x, t: ((1.0, 0.2), (x[0], 1.0)), dim=2, noise="general"),
        (0.1, 0.2), "euler_maruyama",
    ),
    "one number for two components": (sde.ito(lambda x, t: (-x[1], x[0]), unit, dim=2), (0.1, 0.2), "heun"),
    "stratonovich": (sde.stratonovich(lambda x, t: -x, lambda x, t: 0.3 * x), 1.0, "euler_maruyama"),
    "many elements": (sde.OrnsteinUhlenbeck(), (0.1, 0.2, 0.3), "euler_maruyama"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
def test_debugged_paths_are_the_compiled_ones(name):
    process, x0, method = PROCESSES[name]
    compiled = sde.simulate(process, x0, (0, 1), method=method, save="all", **RUN)
    debugged = sde.simulate(process, x0, (0, 1), method=method, save="all", debug=True, **RUN)
    np.testing.assert_allclose(debugged.x, compiled.x, rtol=1e-12, atol=1e-13)
    assert debugged.attributes["process_repr"] == compiled.attributes["process_repr"]


def test_debugging_sees_every_path_and_travels(capsys):
    def told(x, t):
        if t == 0.0:
            print(f"{x:g}")
        return -x

    x0 = np.array([0.5, 0.25, 0.125])
    sde.simulate(sde.ito(told, unit), x0, (0, 1), n_steps=2, seed=1, debug=True, workers=1)
    assert capsys.readouterr().out.split()[-3:] == ["0.5", "0.25", "0.125"]
    paths = sde.simulate(sde.OrnsteinUhlenbeck(), x0, (0, 1), n_steps=2, seed=1, debug=True)
    assert pickle.loads(pickle.dumps(paths)).final.tobytes() == paths.final.tobytes()


def test_a_debugged_run_goes_on_from_its_checkpoint(tmp_path):
    run = {**RUN, "n_paths": 600, "workers": 1, "debug": True}
    whole = sde.simulate(sde.OrnsteinUhlenbeck(), 0.5, (0, 1), **run)

    def stop(done, total):
        if done < total:
            raise KeyboardInterrupt

    cut = sde.simulate(sde.OrnsteinUhlenbeck(), 0.5, (0, 1), checkpoint=tmp_path / "c", progress=stop, **run)
    assert cut.n_paths < 600
    again = sde.simulate(sde.OrnsteinUhlenbeck(), 0.5, (0, 1), checkpoint=tmp_path / "c", **run)
    assert again.final.tobytes() == whole.final.tobytes()


def test_what_debug_mode_cannot_do_is_said():
    with pytest.raises(TypeError, match="debug must be True or False, got 'yes'"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), debug="yes", **RUN)
    with pytest.raises(ValueError, match="debug=True runs formulas as plain Python, and device='cuda' cannot"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), device="cuda", debug=True, **RUN)
    with pytest.raises(ValueError, match="exact"):
        sde.simulate(sde.Wiener(), 0.0, (0, 1), method="exact", debug=True, **RUN)


# ---- controls


def test_without_the_notes_nobody_would_know_the_step(monkeypatch):
    stages = batch._stages

    def bare(*arguments):
        advance = stages(*arguments)

        def step(*given):
            try:
                return advance(*given)
            except Exception as error:
                raise type(error)(*error.args) from None

        return step

    monkeypatch.setattr(batch, "_stages", bare)
    with pytest.raises(LookupError) as caught:
        sde.simulate(sde.ito(fragile, unit), 0.0, (0, 1), debug=True, **RUN)
    assert "of path " not in notes(caught.value)
    assert "of paths 512" in notes(caught.value)
