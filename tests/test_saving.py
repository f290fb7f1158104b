"""Files of networks: the same bits come back, and nothing in a file is believed."""

import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import storage
from sdesim.score.head import Head
from test_network import VP, network, points


def test_save_and_load_and_pickle_keep_the_bits(tmp_path):
    for kind, process in (("edm", VP), ("noise", sde.VarianceExploding(0.02, 9.0)), ("plain", None)):
        net = network(kind=kind, dtype=np.float32)
        net = net.with_parameters(net.parameters, head=Head(kind, process, np.arange(3.0), 2.5, 1e-3))
        sde.save(net, tmp_path / "net.npz")
        x, t, _ = points(10)
        for other in (sde.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net))):
            assert (other(x, t) == net(x, t)).all()
            assert other.parameters.dtype == net.dtype
            assert not other.parameters.flags.writeable


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match=r"save takes ScoreMLP, .*got dict"):
        sde.save({}, tmp_path / "x.npz")

    class Own(sde.VariancePreserving):
        pass

    net = network()
    net = net.with_parameters(net.parameters, head=Head("edm", Own(), np.zeros(3)))
    with pytest.raises(TypeError, match="cannot be saved"):
        sde.save(net, tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError, match="folder"):
        sde.save(network(), tmp_path / "no" / "x.npz")


def rewritten(path, change):
    """The file with its members passed through ``change(name, bytes)``."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)
    path.write_bytes(out.getvalue())


def header_with(**changes):
    def change(members):
        header = json.loads(members["header"])
        for key, value in changes.items():
            place, *rest = key.split("__")
            if rest:
                header[place][rest[0]] = value
            else:
                header[place] = value
        return {**members, "header": json.dumps(header).encode()}

    return change


def flipped(members):
    content = bytearray(members["parameters.npy"])
    content[-3] ^= 1
    return {**members, "parameters.npy": bytes(content)}


def pickled(members):
    out = io.BytesIO()
    np.save(out, np.array([print], dtype=object), allow_pickle=True)
    return {**members, "parameters.npy": out.getvalue()}


def boasting(members):
    """An array that claims a petabyte."""
    header = json.loads(members["header"])
    header["arrays"]["parameters"]["shape"] = [2**47]
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (2**47,)})
    return {**members, "header": json.dumps(header).encode(), "parameters.npy": out.getvalue() + b"0" * 64}


def infinite(members):
    with_it = np.full(network().parameters.size, np.inf)
    out = io.BytesIO()
    np.save(out, with_it)
    header = json.loads(members["header"])
    header["arrays"]["parameters"]["sha256"] = storage._digest(with_it)
    return {
        "header": json.dumps(header).encode(),
        "parameters.npy": out.getvalue(),
        "centre.npy": members["centre.npy"],
    }


def with_prefix(members):
    """An array behind a prefix that Python would have to parse."""
    text = b"-" * 4000 + b"1\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + members["parameters.npy"][128:]
    return {**members, "parameters.npy": content}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flipped, "digest"),
        (pickled, "not what the header says|bytes, expected|format"),
        (boasting, "bytes, expected"),
        (infinite, "not finite"),
        (lambda members: {"parameters.npy": members["parameters.npy"]}, "no header"),
        (lambda members: {**members, "extra.npy": b"x"}, "members are not those"),
        (lambda members: {**members, "header": b"[" * 100_000}, "not a file of sdesim: maximum recursion"),
        (lambda members: {**members, "header": b"{}"}, "format is None"),
        (lambda members: {**members, "header": b" " * 2**21}, "its header has"),
        (header_with(kind="os"), "which load does not make"),
        (header_with(settings__hidden=[10**9, 10**9]), "parameters, more than"),
        (header_with(settings__hidden=[4]), "do not make a network"),
        (header_with(settings__activation="exec"), "activation must be one of"),
        (header_with(settings__head={"kind": "edm", "process": {"name": "os.system", "fields": {}}}), "describe"),
        (header_with(settings={}), "does not describe a ScoreMLP: it lacks 'dim'"),
        (header_with(kind="a\n\x1b[2Jb"), r"holds a a  \[2Jb, which"),
        (header_with(kind="a" * 10_000), r"holds a a{399}…, which"),
        (header_with(settings__head={"kind": "edm", "spread": 10**400}), "does not describe"),
        (with_prefix, "not what the header says"),
    ],
)
def test_a_file_of_an_attacker_is_refused(tmp_path, change, message):
    path = tmp_path / "net.npz"
    sde.save(network(), path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=message) as caught:
        sde.load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("fields", [(20,), (24,), (20, 24)])
def test_what_a_list_of_members_claims_is_not_asked_for(tmp_path, fields):
    path = tmp_path / "net.npz"
    sde.save(network(), path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    for field in fields:
        content[entry + field : entry + field + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"compressed members|members claim"):
        sde.load(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_long_list_of_members_is_not_read(tmp_path):
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(3000):
            archive.writestr(f"{k}", b"")
    with pytest.raises(ValueError, match="bytes at once, more than"):
        sde.load(path)


def test_a_network_of_countless_blocks_is_only_counted(tmp_path):
    path = tmp_path / "net.npz"
    net = sde.ResidualMLP(2, 4, 3, n_classes=2)
    assert net.layout.size == sum(int(np.prod(shape)) for shape in net.layout.shapes)
    sde.save(net, path)
    rewritten(path, header_with(settings__n_blocks=10**12))
    with pytest.raises(ValueError, match="parameters, more than"):
        sde.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is no regular file"):
            sde.load(path)


def test_other_files_and_limits(tmp_path):
    path = tmp_path / "net.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="not a file of sdesim"):
        sde.load(path)
    with pytest.raises(FileNotFoundError):
        sde.load(tmp_path / "none.npz")
    sde.save(network(), path)
    with pytest.raises(ValueError, match="more than the limit"):
        sde.load(path, max_bytes=100)
    whole = path.read_bytes()
    for size in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"net\.npz"):
            sde.load(path)
