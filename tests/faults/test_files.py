"""F10: 12,000 damaged and malicious files: each gives the documented error, or exactly what was written.

A campaign takes a file that the library wrote, changes its bytes or rebuilds the archive around forged contents, loads
the result and looks at what may never happen: another error, a message of many lines, other numbers than were written,
memory, time, or code that was run. The tests at the end take one guard away each and see the campaign fail.
"""

import copy
import io
import json
import pathlib
import pickle
import random
import signal
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

import sdesim as sde
from sdesim.core import storage
from sdesim.core.checkpoint import Checkpoint
from sdesim.score import checkpoints, fit

KINDS = ("score", "residual", "mixer", "energy", "vae", "training")
MEGABYTE = 2**20
DATA = np.random.default_rng(0).standard_normal((64, 2))
OPTIONS = {
    "process": sde.VariancePreserving(), "n_iterations": 6, "batch_size": 16, "seed": 1, "validation": 0.1,
    "validate_every": 3, "workers": 1,
}  # fmt: skip


class HangError(BaseException):
    """A load that took too long; no handler of errors takes it for one of the file."""


# ---- the files, and how each is loaded


class Victim:
    """A file of one kind: its bytes, how it is loaded from a path, and all the numbers of what was loaded."""

    def __init__(self, kind, folder):
        path = folder / f"{kind}.npz"
        self.kind, self.loop = kind, None
        if kind == "training":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(fit._Loop, "run", lambda loop: loop)
                self.loop = sde.fit_score(self.net(), DATA, **OPTIONS, checkpoint=path)
            sde.fit_score(self.net(), DATA, **OPTIONS, checkpoint=path)
        else:
            sde.save(self.net(), path)
        self.bytes = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.load(path)
        self.written = self.numbers()

    def net(self):
        if self.kind == "residual":
            backbone = sde.targets.Gaussian(np.array([0.5, -1.0]), np.array([[2.0, 0.3], [0.3, 1.0]]))
            return sde.ResidualMLP(2, 4, 1, n_classes=2, backbone=backbone, class_weights=[[1.0], [1.0]])
        if self.kind == "mixer":
            return sde.MixerMLP((2, 1), 2, 1, patch=1, context=0, channel_width=2, n_frequencies=1)
        if self.kind == "energy":
            return sde.EnergyMLP(2, (4,))
        return sde.VAE(2, 1, (4,)) if self.kind == "vae" else sde.ScoreMLP(2, (4,))

    def load(self, path):
        if self.loop is None:
            self.found = sde.load(path)
        else:
            self.loop.keep(Checkpoint(path, "training"), self.loop.asked)

    def numbers(self):
        """Everything that was loaded, as one string of bytes, in which a number is written by its bits."""
        if self.loop is None:
            settings, arrays = self.found.stored()
        else:
            settings, arrays = {"tried": self.loop.tried, "best": self.loop.best[0]}, {
                **self.loop.adam.state(), "losses": self.loop.losses[: self.loop.done], "weights": self.loop.best[1],
            }  # fmt: skip
        assert all(np.isfinite(array).all() for array in arrays.values()), "numbers that are not finite"
        return repr(settings).encode() + b"".join(arrays[name].tobytes() for name in sorted(arrays))


@pytest.fixture(scope="module")
def victims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("victims")
    return {kind: Victim(kind, folder) for kind in KINDS}


def archive(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return out.getvalue()


# ---- changes of bytes: what is loaded nevertheless must be what was written


def flips(rng, victim, canary):
    content = bytearray(victim.bytes)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def truncated(rng, victim, canary):
    cut = rng.randrange(len(victim.bytes))
    return rng.choice([victim.bytes[:cut], victim.bytes[cut + 1 :]])


def overwritten(rng, victim, canary):
    start, n = rng.randrange(len(victim.bytes)), rng.choice([1, 4, 64, 1024])
    replace = rng.choice([n, 0, rng.randrange(2 * n)])  # also insertions and deletions
    fill = rng.choice([rng.randbytes(n), bytes(n), b"\xff" * n, victim.bytes[:n]])
    return victim.bytes[:start] + fill + victim.bytes[start + replace :]


def noise(rng, victim, canary):
    head = rng.choice([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00", b"\x80\x04"])
    return head + rng.randbytes(rng.randrange(2000))


def listing(rng, victim, canary):
    """A field of the list of members, or of its end, with an extreme value."""
    content = bytearray(victim.bytes)
    start = content.index(b"PK\x01\x02")
    where = rng.choice([rng.randrange(start, len(content) - 4), len(content) - rng.choice([22, 18, 14, 10, 6])])
    content[where : where + 4] = struct.pack("<I", rng.choice([0, 1, 2**16 - 1, 2**31, 2**32 - 1, rng.getrandbits(32)]))
    return bytes(content)


def forged(rng, victim, canary):
    """Other numbers, with the archive's own checksum made right and the header as it was."""
    name = rng.choice([name for name, content in victim.members.items() if name != "header" and len(content) > 130])
    content = bytearray(victim.members[name])
    content[rng.randrange(128, len(content))] ^= 1 << rng.randrange(8)
    return archive({**victim.members, name: bytes(content)})


# ---- contents made by an attacker: what is loaded must be a network of finite numbers

NASTY = [
    0, -1, 2**31, 2**63, 2**64, 10**18, 10**400, 1.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), True, False,
    None, "", "silu", "os.system", "a\nb\x1b[31m\ud800", "x" * 50_000, [], [2], [10**9, 10**9], [[[]]], [1] * 3000, {},
    {"a": 1}, {"name": "EDM", "fields": {}}, {"name": "EDM", "fields": {"sigma_max": 10**400}},
    {"name": "EDM", "fields": [1]}, {"name": "VariancePreserving", "fields": {"beta_min": -1.0, "beta_max": 1e308}},
    {"name": "Cosine", "fields": "x"},
]  # fmt: skip


def places(node, path=()):
    """The ways to everything in a header."""
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, (*path, index))


def with_header(victim, header, **members):
    return archive({**victim.members, **members, "header": json.dumps(header).encode()})


def headers(rng, victim, canary):
    header = json.loads(victim.members["header"])
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice(list(places(header))[1:])
        node = header
        for key in path[:-1]:
            node = node[key]
        if rng.random() < 0.15:
            del node[path[-1]]
        else:
            node[path[-1]] = copy.deepcopy(rng.choice(NASTY))
    return with_header(victim, header)


def texts(rng, victim, canary):
    """Headers that are no header."""
    text = rng.choice([
        b"", b"[" * 100_000, b"{" * 1000, b'{"a":' * 50_000, b"1" * 10_000, b"\xff\xfe", b"null", b"NaN",
        b"[" + b"{}," * 300_000 + b"{}]", b" " * (storage.MAX_HEADER + 1),
        b'{"format": "sdesim 1", "kind": "x\\ny\\u001b[2J", "settings": {}, "arrays": {}}',
        victim.members["header"].replace(b"{", b"{" + b'"x": 1, ' * 1000, 1),
    ])  # fmt: skip
    return archive({**victim.members, "header": text})


def swapped(rng, victim, canary):
    """Arrays under each other's names, with the old header or a new one."""
    names = [name for name in victim.members if name != "header"]
    order = rng.sample(names, len(names))
    header = json.loads(victim.members["header"])
    if rng.random() < 0.7:
        described = header["arrays"]
        header["arrays"] = {a[:-4]: described[b[:-4]] for a, b in zip(names, order, strict=True)}
    return with_header(victim, header, **{a: victim.members[b] for a, b in zip(names, order, strict=True)})


def replaced(rng, victim, canary):
    """An array of other numbers, shape or type, with a header that is right about it."""
    header = json.loads(victim.members["header"])
    name = rng.choice(sorted(header["arrays"]))
    about = header["arrays"][name]
    array = np.lib.format.read_array(io.BytesIO(victim.members[f"{name}.npy"])).copy()
    spot = rng.randrange(max(1, array.size))
    change = rng.choice(["nan", "inf", "large", "negative", "integers", "narrow", "empty", "longer", "flat", "square"])
    if change in ("nan", "inf", "large", "negative") and array.size:
        array.reshape(-1)[spot] = {"nan": np.nan, "inf": -np.inf, "large": 1e38, "negative": -3.0}[change]
    array = {
        "integers": lambda: np.ones(array.shape, np.int64), "empty": lambda: array.reshape(-1)[:0],
        "narrow": lambda: array.astype(np.float64 if array.dtype == np.float32 else np.float32),
        "longer": lambda: np.ones(array.size + 1, array.dtype), "flat": lambda: array.reshape(-1),
        "square": lambda: np.ones((array.size, array.size), array.dtype),
    }.get(change, lambda: array)()  # fmt: skip
    about.update(dtype=array.dtype.name, shape=list(array.shape), sha256=storage._digest(array))
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    return with_header(victim, header, **{f"{name}.npy": out.getvalue()})


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def pickled(rng, victim, canary):
    """Pickles wherever an array, a header or a whole file is expected."""
    payload = np.empty(1, object)
    payload[0] = Payload(canary)
    out = io.BytesIO()
    np.lib.format.write_array(out, payload, allow_pickle=True)
    name = rng.choice(list(victim.members))
    header = json.loads(victim.members["header"])
    if name != "header" and rng.random() < 0.5:
        header["arrays"][name[:-4]] = {"dtype": rng.choice(["object", "|O"]), "shape": [1], "sha256": ""}
    if rng.random() < 0.2:
        return rng.choice([out.getvalue(), pickle.dumps(Payload(canary))])
    content = rng.choice([out.getvalue(), pickle.dumps(Payload(canary))])
    return archive({**victim.members, "header": json.dumps(header).encode(), name: content})


def boasting(rng, victim, canary):
    """Arrays that claim to be huge, in the header, in the npy prefix or in both; and prefixes that are code."""
    header = json.loads(victim.members["header"])
    name = rng.choice(sorted(header["arrays"]))
    shape = rng.choice([[2**40], [2**62, 8], [2**63], [0, 2**62], [10**4000], [1] * 64, [2**20, 2**20], [-4, -2]])
    if rng.random() < 0.7:
        header["arrays"][name]["shape"] = shape
    text = rng.choice([
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': {tuple(shape)}, }}", "(" * 9000, "-" * 9000,
        f"__import__('pathlib').Path({str(canary)!r}).touch()",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': True, 'shape': (1,), }", "'\\n" * 50, "", "L" * 12_000,
    ]).encode()  # fmt: skip
    magic = rng.choice([b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"\x93NUMPZ\x01\x00"])
    content = magic + struct.pack("<H", rng.choice([len(text), 2**16 - 1, 0])) + text + bytes(rng.choice([0, 8, 4096]))
    return with_header(victim, header, **{f"{name}.npy": content})


def named(rng, victim, canary):
    """Members and arrays with names of files elsewhere."""
    name = rng.choice([
        str(canary.with_suffix("")), "../canary", "/tmp/../canary", "a\\..\\b", "C:\\canary", "canary\x00", ".", "\n\n",
        "x" * 60_000, "~/canary", "__class__", "header",
    ])  # fmt: skip
    header, members = json.loads(victim.members["header"]), dict(victim.members)
    old = rng.choice(sorted(header["arrays"]))
    new_about, content = header["arrays"][old], members[f"{old}.npy"]
    if rng.random() < 0.5:
        del header["arrays"][old], members[f"{old}.npy"]
    header["arrays"][name] = new_about
    return archive({**members, f"{name}.npy": content, "header": json.dumps(header).encode()})


def bombs(rng, victim, canary):
    """Few bytes that would become many."""
    kind = rng.choice(["deflated", "sizes", "members"])
    if kind == "deflated":
        name = rng.choice(list(victim.members))
        return archive({**victim.members, name: bytes(MEGABYTE)}, rng.choice([8, 12, 14]))
    if kind == "sizes":  # 2 GiB, says the list of members of the first
        content = bytearray(victim.bytes)
        at = content.index(b"PK\x01\x02")
        for where in (20, 24) if rng.random() < 0.7 else (20,):
            content[at + where : at + where + 4] = struct.pack("<I", rng.choice([2**31 - 1, 2**28, 2**32 - 1]))
        return bytes(content)
    start, n = victim.bytes.index(b"PK\x01\x02"), 30_000  # one member, without a name, listed again and again
    entry = victim.bytes[start : start + 28] + bytes(6) + victim.bytes[start + 34 : start + 46]
    end = struct.pack("<HHHHIIH", 0, 0, n, n, n * len(entry), start, 0)
    return victim.bytes[:start] + n * entry + b"PK\x05\x06" + end


BYTES = {flips: 600, truncated: 200, overwritten: 250, noise: 100, listing: 150, forged: 100}
CONTENTS = {headers: 260, texts: 24, swapped: 50, replaced: 100, pickled: 60, boasting: 60, named: 40, bombs: 6}
assert len(KINDS) * sum((BYTES | CONTENTS).values()) == 12_000


# ---- the campaign


def campaign(victim, folder, changes, most=50 * MEGABYTE):
    """(loaded, refused) of so many changes each; raises AssertionError where something happened that never may."""
    path, canary = folder / "file.npz", folder / "canary"
    rng, loaded, refused = random.Random(victim.kind), 0, 0

    def hang(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, hang)
    tracemalloc.start()
    try:
        for change, count in changes.items():
            for number in range(count):
                what = f"{change.__name__} {number} of {victim.kind}"
                content = change(rng, victim, canary)
                path.write_bytes(content)
                known = victim.numbers() if victim.loop is not None else None
                tracemalloc.reset_peak()
                held, started = tracemalloc.get_traced_memory()[0], time.thread_time()
                signal.setitimer(signal.ITIMER_REAL, 60.0)
                try:
                    victim.load(path)
                    message = None
                except ValueError as error:
                    message = str(error)
                except Exception as error:
                    assert not canary.exists(), f"{what}: code in the file was run"
                    raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0.0)
                taken = tracemalloc.get_traced_memory()[1] - held
                assert taken <= most, f"{what}: {taken / MEGABYTE:.0f} MB"
                assert time.thread_time() - started < 2.0, what
                assert not canary.exists(), f"{what}: code in the file was run"
                assert [entry.name for entry in folder.iterdir()] == ["file.npz"], what
                if message is not None:
                    refused += 1
                    assert message.isprintable(), f"{what}: {message[:300]!r}"
                    assert 10 < len(message) < 700, what
                    assert known is None or victim.numbers() == known, f"{what}: refused, and half used"
                    continue
                loaded += 1
                numbers = victim.numbers()
                assert change in CONTENTS or numbers == victim.written, f"{what}: other numbers than were written"
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, before)
    return loaded, refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_of_2000_changed_files_each_is_refused_or_what_was_written(victims, tmp_path, kind):
    loaded, refused = campaign(victims[kind], tmp_path, BYTES | CONTENTS)
    assert loaded + refused == 2000
    assert loaded < 400  # bytes that nobody reads, and settings that are as good as the old ones


# ---- controls: each guard taken away is seen


class Agreeing(str):
    """Equal to everything, as a digest that is not looked at."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def test_without_digests_forged_numbers_are_seen(victims, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_digest", lambda array: Agreeing("x"))
    with pytest.raises(AssertionError, match="other numbers than were written"):
        campaign(victims["vae"], tmp_path, {forged: 20})


def test_with_pickles_allowed_the_payload_runs(victims, tmp_path, monkeypatch):
    def trusting(archive, name, about):
        return np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=True)

    monkeypatch.setattr(storage, "_array", trusting)
    with pytest.raises(AssertionError, match="code in the file was run"):
        campaign(victims["score"], tmp_path, {pickled: 40})


@pytest.mark.parametrize("guard", ["listing", "sizes"])
def test_without_limits_bombs_go_off(victims, tmp_path, monkeypatch, guard):
    inner = storage._read
    if guard == "listing":
        monkeypatch.setattr(storage, "_MAX_LISTING", 2**40)
    else:
        monkeypatch.setattr(storage._File, "read", io.BufferedReader.read)
        monkeypatch.setattr(storage, "_read", lambda archive, size: inner(archive, 2**40))
    with pytest.raises(AssertionError, match=r"bombs .* MB"):
        campaign(victims["energy"], tmp_path, {bombs: 40}, most=8 * MEGABYTE)


def test_without_its_bound_a_message_repeats_the_file(victims, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "brief", str)
    with pytest.raises(AssertionError, match=r"headers|texts"):
        campaign(victims["score"], tmp_path, {headers: 200, texts: 40})


def test_an_unchecked_checkpoint_is_half_used(victims, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_wrong", lambda *_: "")
    with pytest.raises(AssertionError, match=r"replaced|not finite"):
        campaign(victims["training"], tmp_path, {replaced: 100})
