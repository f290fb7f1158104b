"""The one place that imports numba.cuda, and what it takes to use it: is there a device, and if not, what to do.

``numba.cuda`` is numba's own deprecated target until the package numba-cuda takes its place, which is what runs here.
Neither needs a driver to be imported. With ``NUMBA_ENABLE_CUDASIM=1``, read when numba is first imported, kernels run
in a simulator: their bodies in Python, threads one by one, and the ``@njit`` functions that they call compiled for the
CPU. Kernels therefore use the features that both know: ``jit``, ``shared.array``, ``atomic``, ``syncthreads``.

Two things that numba-cuda has no argument for are set while a kernel is compiled (:func:`compiling`), in its compiler
class: the pass over formulas that the CPU's compiler has too, and libNVVM's option ``-fma=0``. Without that option a
product that feeds a sum may be rounded once instead of twice, and paths would not have the bits of the CPU's.
"""

import contextlib
import functools
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
from numba import config

from ..core.compile import on_other_target
from ..errors import DeviceError, MemoryLimitError

try:
    from numba import cuda

    _import_error = ""
except Exception as error:  # a numba-cuda that does not fit numba fails at import in ways of its own
    cuda = None
    _import_error = f"{type(error).__name__}: {error}"

PACKAGE, OLDEST, BELOW = "numba-cuda", (0, 30, 4), (1,)
TOOLKIT = (13, 0)  # what the extra pins; a driver must know at least this version
THREADS = 256  # of a block: the paths of a leaf

simulated: bool = bool(config.ENABLE_CUDASIM)


def available() -> tuple[bool, str]:
    """Whether kernels can run here, and the reason: the device, "simulator", or a sentence that says what to do."""
    if cuda is None:
        return False, f"numba.cuda cannot be imported ({_import_error}); pip install --upgrade 'sdesim[cuda]'"
    if simulated:
        return True, "simulator"
    return _probe()


@functools.cache
def _probe() -> tuple[bool, str]:
    problem = _package_problem()
    if problem:
        return False, problem
    try:
        if not cuda.is_available():
            return False, _driver_problem(str(cuda.cuda_error() or ""))
        found = tuple(cuda.cudadrv.driver.get_version())
        if found < TOOLKIT:
            return False, _old_driver(found)
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        major, minor = device.compute_capability
        return True, f"{name}, compute capability {major}.{minor}, driver for CUDA {found[0]}.{found[1]}"
    except Exception as error:  # of a driver in some broken state, anything
        return False, f"the CUDA driver does not answer ({type(error).__name__}: {first_line(error)}); try nvidia-smi"


def _package_problem() -> str:
    """What is wrong with the installed numba-cuda, if anything."""
    wanted = f">={'.'.join(map(str, OLDEST))},<{BELOW[0]}"
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return f"{PACKAGE} is not installed; pip install 'sdesim[cuda]'"
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not OLDEST <= numbers < BELOW:
        return f"{PACKAGE} {version} is installed, and {wanted} is needed; pip install --upgrade 'sdesim[cuda]'"
    return ""


def _driver_problem(said: str) -> str:
    said = " ".join(said.split()) or "no device was found"
    if "insufficient" in said.lower() or "forward compat" in said.lower():
        return f"the CUDA driver is too old ({said}); install NVIDIA driver 580 or newer"
    return f"no CUDA device can be used ({said}); install NVIDIA driver 580 or newer, or leave device='cpu'"


def _old_driver(found: tuple[int, ...]) -> str:
    return (
        f"the CUDA driver knows CUDA {found[0]}.{found[1]}, and kernels are compiled for {TOOLKIT[0]}.{TOOLKIT[1]}; "
        "install NVIDIA driver 580 or newer"
    )


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require() -> None:
    """Raise a DeviceError that says what to do where kernels cannot run."""
    ready, reason = available()
    if not ready:
        raise DeviceError(f"device='cuda' cannot be used: {reason}")


def free_memory() -> int:
    """Bytes of device memory that are free; in the simulator a little, so that chunks are exercised."""
    if simulated:
        return 2**26
    return int(cuda.current_context().get_memory_info().free)


@contextlib.contextmanager
def explained(cure: str) -> Iterator[None]:
    """Turn an allocation that the device refuses into a MemoryLimitError that names a cure."""
    try:
        yield
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error).upper() and type(error).__name__ != "OutOfMemoryError":
            raise
        raise MemoryLimitError(f"the CUDA device is out of memory; {cure}") from error


# ---- compilation ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def compiling(*, contract: bool = False) -> Iterator[None]:
    """While this is open numba-cuda compiles as the CPU engines do; ``contract`` lets a·b + c be rounded once."""
    if simulated:
        yield
        return
    from numba.cuda import compiler

    original = compiler.CUDACompiler
    compiler.CUDACompiler = _compiler(contract)
    try:
        yield
    finally:
        compiler.CUDACompiler = original


@functools.cache
def _compiler(contract: bool) -> Any:
    from numba.cuda import compiler
    from numba.cuda.core import ir
    from numba.cuda.core.compiler_machinery import FunctionPass, register_pass
    from numba.cuda.core.untyped_passes import IRProcessing

    @register_pass(mutates_CFG=False, analysis_only=False)
    class Formulas(FunctionPass):
        """The pass over formulas, on numba-cuda's classes."""

        _name = "sdesim_formulas"

        def __init__(self) -> None:
            FunctionPass.__init__(self)

        def run_pass(self, state: Any) -> bool:
            return on_other_target(state, ir)

    class Compiler(compiler.CUDACompiler):
        """numba-cuda's pipeline with the pass in it, and libNVVM told what it may contract."""

        def define_pipelines(self) -> list[Any]:
            options = self.state.flags.nvvm_options
            if options and not contract:
                self.state.flags.nvvm_options = {**options, "fma": False}
            (pipeline,) = super().define_pipelines()
            pipeline.add_pass_after(Formulas, IRProcessing)
            pipeline.finalize()
            return [pipeline]

    return Compiler


def is_refusal(error: Exception) -> bool:
    """Whether an error is the compiler's, which meets a NumPy function that it does not know with a KeyError."""
    named = {kind.__name__ for kind in type(error).__mro__}
    return not simulated and bool(named & {"NumbaError", "KeyError", "NotImplementedError", "NvvmError", "nvvmError"})


def plain(array: Any) -> Any:
    """An array of a kernel as its compiled functions take it: in the simulator it stands inside a wrapper."""
    while not isinstance(array, np.ndarray):
        array = array._item if hasattr(array, "_item") else array._ary
    return array
