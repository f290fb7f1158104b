"""The command line: ``sdesim demo | run | sample | random | bench | doctor | cache``; a thin caller of the library.

Exit codes: 0 all right, 1 a claim or a check failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 ended (SIGTERM).
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    debug = False
    try:
        options = _parse(arguments)
        debug = options.debug
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has gone (`| head`): nothing is left to say
        _say_no_more()
        return 0
    except Exception as error:
        if debug:
            raise
        print(f"sdesim: {type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(error, OSError):  # standard output itself may be a full disk
            _say_no_more()
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # the help that was asked for, while a broken pipe can still be met
        raise


def _say_no_more() -> None:
    """Let what is still in the buffer go nowhere, or the interpreter would complain of it at its shutdown."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    from . import __version__, random_pipe

    parser = argparse.ArgumentParser(prog="sdesim", description="stochastic processes from every side")
    parser.add_argument("--version", action="version", version=f"sdesim {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="a million paths against the Fokker-Planck equation, four times")
    demo.add_argument("--paths", type=int, default=1_000_000, help="paths of each process (default 1000000)")
    demo.add_argument("--out", default="sdesim-demo.png", help="the picture (default sdesim-demo.png)")
    demo.add_argument("--json", action="store_true", help="print the figures as JSON")
    demo.set_defaults(run=_demo)

    study = commands.add_parser("run", help="a whole study from a file: paths, density, tables, pictures")
    study.add_argument("config", help="the file, TOML; examples/study.toml is one")
    study.add_argument("--resume", action="store_true", help="go on with a study that was not finished")
    study.add_argument("--out", help="the folder of its outputs, in place of the file's")
    study.add_argument("--seed", type=int, help="in place of the file's")
    study.add_argument("--paths", type=int, help="how many paths, in place of the file's")
    study.set_defaults(run=_study)

    sample = commands.add_parser("sample", help="pictures drawn by a network: the one that ships, or one you saved")
    sample.add_argument("--out", default="sdesim-sample.png", help="the picture (default sdesim-sample.png)")
    sample.add_argument("--model", help="a file by sdesim.save; without it handwritten digits, by a network that ships")
    sample.add_argument("--n", type=int, default=100, help="how many (default 100)")
    sample.add_argument("--label", type=int, help="their class; without it all classes by turns")
    sample.add_argument("--guidance", type=float, default=0.5, help="exaggerate what the class changes (default 0.5)")
    sample.add_argument("--steps", type=int, default=14, help="of Heun's method (default 14)")
    sample.add_argument("--t-end", type=float, help="where to stop and denoise; unless given, at a sixth of the spread")
    sample.add_argument("--seed", type=int, help="one seed, one picture")
    sample.set_defaults(run=_sample)

    random_pipe.add(commands)

    bench = commands.add_parser("bench", help="how many steps a second this machine makes")
    bench.add_argument("--paths", type=int, default=100_000)
    bench.add_argument("--steps", type=int, default=200)
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    bench.set_defaults(run=_bench)

    doctor = commands.add_parser("doctor", help="versions, cores, cache folder, BLAS, GPU, and a check of the stream")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)

    cache = commands.add_parser("cache", help="the folder of compiled code")
    cache.add_argument("action", choices=["clear", "path"])
    cache.set_defaults(run=_cache)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from . import demo
    from .core import checks

    checks.integer("--paths", options.paths, minimum=1000)
    _writable(options.out)
    start, cpu = time.perf_counter(), time.process_time()
    quiet = options.json or not sys.stderr.isatty()
    report = None if options.json else lambda claim: print(claim, flush=True)
    claims = demo.run(options.paths, progress=not quiet, report=report)
    demo.picture(claims, options.out)
    steps, seconds = sum(c.path_steps for c in claims), sum(c.seconds for c in claims)
    rate = steps / seconds
    if options.json:
        rows = [
            {"title": c.title, "statement": c.statement, "holds": c.holds, "figures": c.figures, "seconds": c.seconds}
            for c in claims
        ]
        print(json.dumps({"claims": rows, "path_steps_per_second": rate, "picture": options.out}))
    else:
        print(
            f"{steps:.3g} path-steps in {seconds:.2f} s of simulation, compilation included: {rate / 1e6:.0f} million "
            f"a second; all in all {time.perf_counter() - start:.1f} s ({time.process_time() - cpu:.1f} s of CPU)"
        )
        print(f"picture: {options.out}")
    return 0 if all(c.holds for c in claims) else 1


def _study(options: argparse.Namespace) -> int:
    from . import study

    ended = []

    def end(number: int, frame: Any) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    listening = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, end) if listening else None
    try:
        found = study.read(options.config, out=options.out, seed=options.seed, n_paths=options.paths)
        study.run(found, resume=options.resume, progress=sys.stderr.isatty())
        return 0
    except study.StudyError as error:
        if options.debug:
            raise
        print(f"sdesim: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        where = f": {error}" if str(error) else ""
        print(f"interrupted{where}; go on with: sdesim run {options.config} --resume", file=sys.stderr)
        return 143 if ended else 130
    finally:
        if listening:
            signal.signal(signal.SIGTERM, before)


def _sample(options: argparse.Namespace) -> int:
    from . import sampling
    from .saving import load

    _writable(options.out)
    net = sampling.shipped() if options.model is None else load(options.model)
    found = sampling.draw(
        net, options.n, label=options.label, guidance=options.guidance, n_steps=options.steps, t_end=options.t_end,
        seed=options.seed, progress=sys.stderr.isatty(),
    )  # fmt: skip
    found.picture(options.out)
    print(f"{net}")
    print(f"{len(found.images)} pictures in {found.seconds:.1f} s, compilation included: {options.out}")
    return 0


def _writable(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"the picture cannot be written into {folder} ({error.strerror}); pass --out") from None


def _bench(options: argparse.Namespace) -> int:
    import numpy as np

    from . import GeometricBrownian, OrnsteinUhlenbeck, simulate
    from .core.blocks import available_cores

    relaxing, growing = OrnsteinUhlenbeck(0.5, 0.0, 0.7), GeometricBrownian(0.05, 0.2)
    jobs: list[tuple[str, Any, str]] = [
        ("Ornstein-Uhlenbeck", relaxing, method) for method in ("euler_maruyama", "weak_euler", "sra")
    ]
    jobs += [("geometric Brownian", growing, method) for method in ("exact", "milstein", "heun", "sri")]
    rows = []
    for title, process, method in jobs:
        for dtype in (np.float32, np.float64):
            run = {"n_steps": options.steps, "method": method, "dtype": dtype, "seed": 1}
            simulate(process, 1.0, (0.0, 1.0), n_paths=1000, **run)
            wall, cpu = time.perf_counter(), time.process_time()
            simulate(process, 1.0, (0.0, 1.0), n_paths=options.paths, **run)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            steps = options.paths * options.steps
            rows.append(
                {"process": title, "method": method, "dtype": np.dtype(dtype).name,
                 "per_second": steps / wall, "per_core_second": steps / cpu}
            )  # fmt: skip
    if options.json:
        print(json.dumps({"cores": available_cores(), "rows": rows}))
        return 0
    print(f"million path-steps a second, {available_cores()} cores")
    print(f"{'process':20s} {'method':16s} {'dtype':8s} {'wall':>8s} {'per core':>9s}")
    for row in rows:
        print(
            f"{row['process']:20s} {row['method']:16s} {row['dtype']:8s} "
            f"{row['per_second'] / 1e6:8.0f} {row['per_core_second'] / 1e6:9.0f}"
        )
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import platform
    from importlib import metadata

    from . import __version__
    from .core import blocks, cache, philox, stream
    from .cuda import backend

    versions = {"sdesim": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "numba", "llvmlite", "matplotlib", "tqdm"):
        versions[name] = metadata.version(name)
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions[backend.PACKAGE] = metadata.version(backend.PACKAGE)
    cuda, reason = backend.available()
    if cuda:
        from .cuda import products

        reason += f"; {products.described()}"
    folder = cache.folder()
    findings = {
        "versions": versions,
        "platform": platform.platform(),
        "cores": blocks.available_cores(),
        "cache": str(folder) if folder else "none can be written; every process compiles anew",
        "blas": _blas(),
        "cuda": reason if cuda else f"no: {reason}",
        "stream_version": stream.VERSION,
        "stream_known_answer": philox.known_answer(),
    }
    if options.json:
        print(json.dumps(findings))
    else:
        for name, value in findings.items():
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            print(f"{name.replace('_', ' '):20s} {shown}")
    return 0 if findings["stream_known_answer"] == "ok" else 1


def _blas() -> str:
    """The BLAS that NumPy multiplies matrices with."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    found = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return "; ".join(f"{p['internal_api']} {p['version']}, {p['num_threads']} threads" for p in found) or "unknown"


def _cache(options: argparse.Namespace) -> int:
    from .core import cache

    if options.action == "clear":
        cache.clear()
    print(cache.folder() or "none can be written")
    return 0
