"""paths.to_xarray(): labelled states, and attributes that say how to have them again."""

import json
import sys

import numpy as np
import pytest

import sdesim as sde

OU = sde.OrnsteinUhlenbeck(1.0, 0.3, 0.8)
TURNING = sde.ito(lambda x, t, rate: (rate * x[1], -x[0]), lambda x, t, rate: (0.3, 0.2), dim=2, rate=2.0)
RUN = {"n_steps": 8, "seed": 2**64 - 5, "first_path": 256, "save": 2}


def test_dimensions_and_coordinates():
    xarray = pytest.importorskip("xarray")
    paths = sde.simulate(OU, 0.5, (0.0, 2.0), n_paths=40, **RUN)
    data = paths.to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert data.x.dims == ("path", "time")
    assert data.x.values.tobytes() == paths.x.tobytes()
    assert np.array_equal(data.time, paths.t)
    assert data.path.values.tolist() == list(range(256, 296))
    assert data.x.sel(path=260, time=1.0).item() == paths.x[4, 2]
    two = sde.simulate(TURNING, (1.0, 0.0), (0.0, 2.0), n_paths=40, **RUN).to_xarray()
    assert two.x.dims == ("path", "time", "component")
    grid = sde.simulate(OU, np.zeros((4, 2, 3)), (0.0, 2.0), **RUN).to_xarray()
    assert grid.x.dims == ("path", "time", "component_0", "component_1")


@pytest.mark.parametrize("suffix", ["npy", "zarr"])
def test_states_in_a_file_are_the_same_dataset(tmp_path, suffix):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    out = tmp_path / f"x.{suffix}"
    filed = sde.simulate(TURNING, (1.0, 0.0), (0.0, 2.0), n_paths=600, **RUN, out=out)
    plain = sde.simulate(TURNING, (1.0, 0.0), (0.0, 2.0), n_paths=600, **RUN)
    assert filed.to_xarray().identical(plain.to_xarray())
    if suffix == "zarr":
        read = xarray.open_zarr(out, chunks=None, consolidated=False)
        assert read.identical(plain.to_xarray().drop_vars("path"))


def test_the_attributes_reproduce_the_run():
    pytest.importorskip("xarray")
    mixture = sde.targets.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], 0.2)
    x0 = np.random.default_rng(0).standard_normal((5, 2))
    paths = sde.simulate(sde.Langevin(mixture, 0.5), x0, (0.0, 1.0), method="unadjusted_langevin", dtype="f4", **RUN)
    about = paths.to_xarray().attrs
    made_of = json.loads(about["parameters"])
    target = made_of["target_or_score"] if "target_or_score" in made_of else made_of["target"]
    process = sde.Langevin(
        sde.targets.GaussianMixture(target["weights"], target["means"], target["covs"]), made_of["temperature"]
    )
    again = sde.simulate(
        process, json.loads(about["x0"]), tuple(about["t_span"]), save=2,
        **{name: about[name] for name in ("n_steps", "first_path", "seed", "method", "dtype")},
    )  # fmt: skip
    assert again.x.tobytes() == paths.x.tobytes()
    assert about["sdesim_version"] == sde.__version__
    assert about["stream_version"] == 1
    assert set(about) >= {"process_repr", "n_paths", "on_nonfinite", "numpy_version", "numba_version", "python_version"}


def test_functions_are_told_by_their_text_and_large_arrays_by_a_digest():
    x0 = np.random.default_rng(0).standard_normal(1000)
    paths = sde.simulate(sde.ito(lambda x, t: 0.25 - x, lambda x, t: 0.5), x0, (0.0, 1.0), **RUN)
    assert "lambda x, t: 0.25 - x" in paths.attributes["formula_drift"]
    other = sde.simulate(OU, x0[::-1], (0.0, 1.0), **RUN)
    assert paths.attributes["x0"].startswith("float64 (1000,), sha256 ")
    assert paths.attributes["x0"] != other.attributes["x0"]
    assert "formula_drift" not in other.attributes
    json.dumps(paths.attributes)
    assert all(isinstance(value, (int, float, str, list)) for value in paths.attributes.values())


def test_without_xarray_the_extra_is_named(monkeypatch):
    paths = sde.simulate(OU, 0.5, (0.0, 2.0), n_paths=40, **RUN)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"to_xarray\(\) needs xarray; install it by pip install 'sdesim\[xarray\]'"):
        paths.to_xarray()
