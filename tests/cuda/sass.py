"""Kernels compiled for sm_90 without a device: their PTX, and what ptxas and nvdisasm say of the machine code."""

import os
import pathlib
import re
import shutil
import subprocess
from collections import Counter
from types import SimpleNamespace

import numpy as np
from numba import types

from sdesim import bind
from sdesim.cuda import backend, kernel
from sdesim.integrate.tiles import Variant

HOPPER = (9, 0)


def tool(name):
    """A program of the CUDA toolkit: of the packages that the extra installs, or on the path; None where neither is."""
    try:
        import nvidia
    except ImportError:
        return shutil.which(name)
    for folder in nvidia.__path__:
        for found in sorted(pathlib.Path(folder).glob(f"*/bin/{name}")):
            if os.access(found, os.X_OK):
                return str(found)
    return shutil.which(name)


def missing():
    """Why kernels cannot be compiled here, or nothing where they can."""
    if os.environ.get("SDESIM_TEST_CUDA") == "off":
        return "SDESIM_TEST_CUDA=off"
    problem = backend._package_problem()
    if problem or backend.simulated or backend.cuda is None:
        return problem or "kernels are simulated"
    return "" if tool("ptxas") else "no ptxas; pip install nvidia-cuda-nvcc==13.0.*"


def model_of(process, *, method="euler_maruyama", dtype=np.float32, d=1, fast=False, watch=None):
    scheme = bind.pick_scheme(process, method)
    fused = bind.is_fused(process, scheme, Variant())
    return bind.device_model(process, scheme, np.dtype(dtype), d, fused=fused, freeze=False, fast=fast, watch=watch)


def ptx(model, *, contract=None, takes=()):
    """The PTX of a kernel for sm_90."""
    from numba.cuda import compiler, dispatcher

    made = kernel.kernel(model, takes)
    number = types.float32 if model.dtype == np.float32 else types.float64
    arrays = any(isinstance(spec, tuple) for _, spec in model.layout[1])
    parameters = number[::1] if arrays else types.UniTuple(number, max(1, len(model.values)))
    kinds = {"q": parameters, "keys": types.UniTuple(types.uint32, 20)}
    kinds |= dict.fromkeys(("t0", "dt", "lower", "upper"), types.float64)
    kinds |= {"bridge": types.int64, "seed": types.uint64}
    signature = types.void(
        number[:, ::1], number[:, ::1], types.int64, types.int64, types.int64, types.uint64,
        *[kinds.get(name, number) for name in made.arguments],
        types.int64[:, ::1], number[:, :, ::1], number[::1], types.int64[::1],
        *[_kind(value) for one in takes for value in one.arguments.values()],
    )  # fmt: skip
    # numba-cuda asks the current device, of which there is none
    asked, dispatcher.get_current_device = (
        dispatcher.get_current_device,
        lambda: SimpleNamespace(compute_capability=HOPPER),
    )
    try:
        with backend.compiling(contract=made.contract if contract is None else contract):
            return compiler.compile(made.module.run.py_func, signature, cc=HOPPER, device=False, abi="numba")[0]
    finally:
        dispatcher.get_current_device = asked


def leaf_ptx(function):
    """The PTX of a kernel that applies a function to a float32."""
    from numba.cuda import compiler

    def body(out):
        out[0] = function(out[0])

    with backend.compiling():
        return compiler.compile(body, types.void(types.float32[::1]), cc=HOPPER, device=False, abi="numba")[0]


def leaf_ptx_of(function, kind, count, *, contract=False):
    """The PTX of a kernel that stores ``count`` results of a function: of words and keys, or one of (x, t)."""
    from numba.cuda import compiler, dispatcher

    number = types.float32 if kind == "f32" else types.float64
    lines = "\n".join(f"    out[{i}] = r{f'[{i}]' if count > 1 else ''}" for i in range(count))
    given = "c0, c1, low, high, keys" if count > 1 else "x, t"
    scope = {"function": function}
    exec(f"def body(out, {given}):\n    r = function({given})\n{lines}\n", scope)
    word = types.uint32
    arguments = [word] * 4 + [types.UniTuple(word, 20)] if count > 1 else [number] * 2
    asked, dispatcher.get_current_device = (
        dispatcher.get_current_device,
        lambda: SimpleNamespace(compute_capability=HOPPER),
    )
    try:
        with backend.compiling(contract=contract):
            signature = types.void(number[::1], *arguments)
            return compiler.compile(scope["body"], signature, cc=HOPPER, device=False, abi="numba")[0]
    finally:
        dispatcher.get_current_device = asked


def _kind(value):
    if isinstance(value, np.ndarray):
        return types.Array(_kind(value[(0,) * value.ndim] if value.size else value.dtype.type(0)), value.ndim, "C")
    if isinstance(value, tuple):
        return types.UniTuple(_kind(value[0]), len(value))
    return {np.int64: types.int64, np.float64: types.float64, float: types.float64, np.float32: types.float32}[
        type(value)
    ]


def assembled(text, folder, registers=None):
    """What ptxas says: registers, bytes of stack and of spills; and the machine code where it can be read."""
    (folder / "kernel.ptx").write_text(text)
    limit = [] if registers is None else ["-maxrregcount", str(registers)]
    said = subprocess.run(
        [tool("ptxas"), "-arch=sm_90", "-v", *limit, "kernel.ptx", "-o", "kernel.cubin"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    stack, stores, loads = map(
        int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said).groups()
    )
    used = int(re.search(r"Used (\d+) registers", said).group(1))
    code = ""
    if tool("nvdisasm"):
        code = subprocess.run(
            [tool("nvdisasm"), "kernel.cubin"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
    return SimpleNamespace(registers=used, stack=stack, spills=stores + loads, code=code)


def innermost_loops(code):
    """The loops of machine code that hold no other one, each as its instructions."""
    instructions, labels = [], {}
    for line in code.splitlines():
        if label := re.match(r"^(\.L_x_\d+):", line):
            labels[label.group(1)] = len(instructions)
        elif found := re.match(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?(.*?);", line):
            instructions.append(found.group(1).strip())
    loops = []
    for end, instruction in enumerate(instructions):
        target = re.search(r"^BRA.*(\.L_x_\d+)", instruction)
        if target and labels.get(target.group(1), end) < end:
            loops.append((labels[target.group(1)], end))
    inner = [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]
    return [instructions[start : end + 1] for start, end in inner]


def step_loop(code):
    """The loop over whole blocks of steps: the one with the ten rounds of Philox in it."""
    (loop,) = [body for body in innermost_loops(code) if sum("IMAD.WIDE" in line for line in body) >= 16]
    return loop


def operations(body):
    """How often each operation stands in a loop."""
    return Counter(line.split()[0].split(".")[0] for line in body)
