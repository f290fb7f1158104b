"""``sdesim sample``: the network that ships, its picture, and what is refused."""

import importlib.resources

import numpy as np
import pytest

import sdesim as sde
from sdesim import cli, sampling


@pytest.fixture(scope="module")
def net():
    return sampling.shipped()


def test_the_network_that_ships_is_small_and_has_ten_classes(net):
    assert (net.dim, net.n_classes) == (64, 10)
    with importlib.resources.as_file(importlib.resources.files("sdesim") / "models" / "digits.npz") as path:
        assert path.stat().st_size <= 2_000_000


def test_it_draws_the_digit_that_it_is_asked_for(net):
    """Under noise of twice the spread, a digit drawn for a class is denoised best as one of that class."""
    x = sampling.draw(net, 10, seed=1).images
    assert (np.abs(x) < 1.6).all()
    noisy = x + 1.5 * np.random.default_rng(0).standard_normal((8, *x.shape))
    errors = np.empty((10, 10))
    for label in range(10):
        denoised = noisy + 1.5**2 * net(noisy.reshape(80, 64), 1.5, np.full(80, label)).reshape(noisy.shape)
        errors[:, label] = ((denoised - x) ** 2).sum(axis=(0, 2))
    assert (errors.argmin(axis=1) == np.arange(10)).sum() >= 8  # by chance 1
    assert (sampling.draw(net, 10, seed=1).images == x).all()
    assert not (sampling.draw(net, 10, seed=2).images == x).any(axis=1).any()


def test_the_command_writes_a_picture(tmp_path, capsys):
    picture = tmp_path / "grid.png"
    assert cli.main(["sample", "--out", str(picture), "--n", "20", "--seed", "3"]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "20 pictures in" in capsys.readouterr().out


def test_it_draws_from_a_file_of_ones_own(tmp_path, capsys):
    net = sde.MixerMLP((4, 6, 3), 8, 1, patch=2, process=sde.VariancePreserving())
    sde.save(net, tmp_path / "net.npz")
    assert cli.main(["sample", "--out", str(tmp_path / "a.png"), "--model", str(tmp_path / "net.npz"), "--n", "3"]) == 0
    assert "3 pictures" in capsys.readouterr().out
    assert sampling.draw(net, 2, seed=0).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "/nowhere/at/all/x.png"], "cannot be written"),
        (["--label", "10"], "labels must lie in 0 … 9"),
        (["--model", "/nowhere/net.npz"], "net.npz"),
        (["--n", "0"], "n must be >= 1"),
        (["--t-end", "1000"], "t_end"),
    ],
)
def test_what_is_refused(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_network_that_cannot_generate_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a saved score network is needed, got a VAE"):
        sampling.draw(sde.VAE(2, 1), 3)
    with pytest.raises(ValueError, match="no noising process"):
        sampling.draw(sde.MixerMLP((4, 4)), 3)
    with pytest.raises(ValueError, match="name must be"):
        sampling.shipped("cats")
