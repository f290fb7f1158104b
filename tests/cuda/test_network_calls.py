"""cuBLAS and the CUDA driver as they are called, on stand-ins that do what their documentation says."""

import ctypes

import numpy as np
import pytest

from sdesim.cuda import backend, formats, graph, products
from sdesim.errors import DeviceError

pytestmark = pytest.mark.cudasim

RNG = np.random.default_rng(0)


# ---- cuBLAS, by its interface ---------------------------------------------------------------------------------------


class Memory:
    """An array on the host that says where it lies, as a device array does."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape
        self.__cuda_array_interface__ = {"data": (array.ctypes.data, False)}


class Library:
    """cuBLAS as its documentation has it: C = α A B + β C, column by column, for types 0 and computeType 68 or 77."""

    def __init__(self, status=0):
        self.calls, self.status = [], status

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, arguments))
            if name == "cublasGetStatusString":
                return b"no such thing"
            if name == "cublasGemmEx" and self.status == 0:
                self.gemm(*arguments)
            return self.status if name == "cublasGemmEx" else 0

        return call

    def gemm(
        self, handle, transa, transb, m, n, k, alpha, a, atype, lda, b, btype, ldb, beta, c, ctype, ldc, kind, algo
    ):

        assert (transa.value, transb.value, algo.value, kind.value) == (0, 0, -1, 68)
        assert (atype.value, btype.value, ctype.value) == (0, 0, 0)

        def matrix(address, rows, columns, leading):
            flat = (ctypes.c_float * (leading * columns)).from_address(address.value)
            return np.ndarray((rows, columns), np.float32, flat, strides=(4, 4 * leading))

        m, n, k, lda, ldb, ldc = (int(v.value) for v in (m, n, k, lda, ldb, ldc))
        product = matrix(a, m, k, lda) @ matrix(b, k, n, ldb)
        matrix(c, m, n, ldc)[:] = alpha._obj.value * product + beta._obj.value


@pytest.fixture
def cublas(monkeypatch):
    found = Library()
    monkeypatch.setattr(products, "library", lambda: found)
    monkeypatch.setattr(products, "_room", lambda: Memory(np.zeros(1)))
    monkeypatch.setattr(backend, "simulated", False)
    monkeypatch.setattr(products.cuda, "current_context", lambda: None, raising=False)
    return found


def test_cublas_is_given_the_product(cublas):
    a, b = (RNG.normal(size=shape).astype(np.float32) for shape in ((5, 7), (7, 3)))
    out = np.full((5, 3), 9.0, np.float32)
    product = products.of(formats.of("fp32"))
    for _ in range(2):
        product(Memory(a), Memory(b), Memory(out), 4711)
    np.testing.assert_allclose(out, a @ b, rtol=1e-5)
    names = [name for name, _ in cublas.calls]
    assert names.count("cublasSetStream_v2") == 1  # once for a stream, and the workspace after it
    assert names.index("cublasSetWorkspace_v2") > names.index("cublasSetStream_v2")


def test_cublas_says_what_went_wrong(cublas):
    out = Memory(np.zeros((2, 2), np.float32))
    product = products.of(formats.of("fp16"))
    cublas.status = 15
    with pytest.raises(DeviceError, match=r"cublasGemmEx failed: no such thing \(status 15\)"):
        product(out, out, out, 1)
    cublas.status = 3
    with pytest.raises(DeviceError, match="no device memory for itself; give a smaller batch"):
        product(out, out, out, 1)


# ---- graphs, by the driver's interface ------------------------------------------------------------------------------


class Driver:
    """The driver's calls as cuda-bindings makes them: a status, then what was asked for."""

    CUstream = int

    class CUstreamCaptureMode:
        CU_STREAM_CAPTURE_MODE_RELAXED = 2

    def __init__(self, refused=""):
        self.calls, self.refused = [], refused

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            status = 900 if name == self.refused else 0
            return (status, name) if name in ("cuStreamEndCapture", "cuGraphInstantiate") else (status,)

        return call


def test_a_graph_is_recorded_and_replayed(monkeypatch):
    driver, ran = Driver(), []
    monkeypatch.setattr(graph, "_driver", lambda: driver)
    replay = graph.record(lambda: ran.append(1), 1)
    replay()
    replay()
    assert ran == [1]
    assert driver.calls == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy", "cuGraphLaunch",
        "cuGraphLaunch",
    ]  # fmt: skip


def test_what_cannot_be_recorded_is_launched(monkeypatch):
    def broken():
        raise RuntimeError("no such thing in a capture")

    driver = Driver()
    monkeypatch.setattr(graph, "_driver", lambda: driver)
    with pytest.warns(RuntimeWarning, match="could not be recorded .*no such thing in a capture"):
        assert graph.record(broken, 1) is None
    assert driver.calls == ["cuStreamBeginCapture", "cuStreamEndCapture"]  # the stream is no longer recording
    for refused in ("cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"):
        driver.refused = refused
        with pytest.warns(RuntimeWarning, match="launched one by one"):
            assert graph.record(lambda: None, 1) is None
    monkeypatch.undo()
    assert graph.record(lambda: None, graph.new_stream()) is None  # the simulator
