"""A whole study from a file: a process, its paths, its density, and what is written of them; what ``sdesim run`` does.

The file is TOML (``examples/study.toml`` is one):

    [process]                       # a class of the library and its parameters …
    class = "OrnsteinUhlenbeck"
    theta = 1.0
    # function = "mymodule:process"   … or a function of yours that returns a process; the rest are its arguments

    [simulate]                      # the arguments of sdesim.simulate
    x0 = 2.0
    t_span = [0.0, 1.0]
    n_steps = 100
    n_paths = 100_000
    reduce = [{class = "Moments"}, {class = "Histogram", lower = -3.0, upper = 4.0, bins = 100}]

    [density]                       # those of Grid, of evolve_density, and where it starts
    lower = -3.0
    upper = 4.0
    n_cells = 700
    start = {point = 2.0}           # or {mean = 2.0, std = 0.1}

    [output]                        # a folder, and in it:
    folder = "study"
    results = "results.npz"         # every array of the reductions and of the density
    states = "states.npy"           # the states, written as they are simulated
    summary = "summary.csv"         # mean and variance at the saved times
    plot = "study.png"

Objects are made by the name of their class, and functions are imported by their names: nothing in the file is
evaluated. What is running is kept in checkpoints in the folder, which are deleted once all of it is done.
"""

import contextlib
import csv
import dataclasses
import difflib
import importlib
import inspect
import io
import pathlib
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from . import targets
from .core import storage
from .errors import CheckpointError
from .evolution import evolve_density
from .fokker_planck.boundary import Inflow, Robin
from .fokker_planck.cells import gaussian, point_mass
from .fokker_planck.grid import Grid
from .integrate import reductions
from .integrate.walls import Walls
from .processes import cox_ingersoll_ross, double_well, geometric, langevin, noising, ornstein_uhlenbeck, wiener
from .processes.base import Process
from .simulate import simulate

TABLES = ("process", "simulate", "density", "output")
OUTPUTS = ("folder", "results", "states", "summary", "plot")
_SIMULATE = tuple(
    name
    for name in inspect.signature(simulate).parameters
    if name not in ("process", "executor", "increments", "progress", "checkpoint", "out")
)
_DENSITY = ("lower", "upper", "n_cells", "start", "t_span", "save", "rtol", "boundary", "method", "n_steps",
            "richardson")  # fmt: skip


class StudyError(ValueError):
    """The file does not describe a study; the message names the key."""


class Interrupted(KeyboardInterrupt):
    """The study was ended before all was done; its checkpoints are there."""


def _classes() -> dict[str, Any]:
    """The classes of the library that a study can name."""
    modules = (cox_ingersoll_ross, double_well, geometric, langevin, noising, ornstein_uhlenbeck, wiener)
    found: dict[str, Any] = {"Walls": Walls, "Robin": Robin, "Inflow": Inflow}
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Process) and value.__module__ == module.__name__:
                found[name] = value
    known = (targets, reductions)
    found |= {
        name: value
        for module in known
        for name, value in vars(module).items()
        if isinstance(value, type) and not name.startswith("_") and not name.endswith("Result") and name != "Recorder"
    }
    # functions that make targets, such as ring
    found |= {name: value for name, value in vars(targets).items() if inspect.isfunction(value)}
    return found


@dataclasses.dataclass(frozen=True)
class Study:
    """What a file asks for, made and checked."""

    process: Process
    simulate: dict[str, Any] | None
    density: dict[str, Any] | None
    output: dict[str, str]
    folder: pathlib.Path

    def place(self, name: str) -> pathlib.Path | None:
        """Where an output goes, or None where it was not asked for."""
        return self.folder / self.output[name] if name in self.output else None

    def checkpoint(self, name: str) -> pathlib.Path:
        """The checkpoint of a part of the study."""
        return self.folder / f"{name}.checkpoint.npz"


# ---- reading --------------------------------------------------------------------------------------------------------


def read(path: Any, *, out: Any = None, seed: int | None = None, n_paths: int | None = None) -> Study:
    """The study in a file; ``out``, ``seed`` and ``n_paths`` take the place of what it says.

    Raises
    ------
    StudyError
        For a key that is not known (with the nearest one), one that is missing, and values that are refused.
    """
    source = pathlib.Path(path)
    try:
        with open(source, "rb") as file:
            text = tomllib.load(file)
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is no TOML: {error}") from None
    with _beside(source.absolute().parent):
        return _study(text, source, out, seed, n_paths)


def _study(text: dict[str, Any], source: pathlib.Path, out: Any, seed: int | None, n_paths: int | None) -> Study:
    _known("the file", text, TABLES)
    tables = {name: _table(name, text[name]) for name in text}
    if "process" not in tables:
        raise StudyError('the file has no [process]; give one, such as class = "OrnsteinUhlenbeck"')
    if not tables.keys() & {"simulate", "density"}:
        raise StudyError("the file has neither [simulate] nor [density]: there is nothing to do")
    process = _made("[process]", tables["process"])
    if not isinstance(process, Process):
        raise StudyError(f"[process] made a {type(process).__name__}, expected a process")
    paths = _simulation(tables.get("simulate"), seed, n_paths)
    density = _density(tables.get("density"), paths)
    output = _output(tables.get("output", {}), paths, density)
    folder = pathlib.Path(output.pop("folder", source.stem) if out is None else out)
    output.pop("folder", None)
    return Study(process, paths, density, output, folder)


def _table(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StudyError(f"{name} must be a table, [{name}], got {value!r}")
    return value


def _known(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise for a key that is not known, with the nearest one that is."""
    known = list(known)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise StudyError(f"{where} has no key {key!r}, only {', '.join(known)}{hint}")


def _simulation(table: dict[str, Any] | None, seed: int | None, n_paths: int | None) -> dict[str, Any] | None:
    if table is None:
        return None
    _known("[simulate]", table, _SIMULATE)
    given = {key: _value(f"[simulate] {key}", value) for key, value in table.items()}
    for name, value in (("seed", seed), ("n_paths", n_paths)):
        if value is not None:
            given[name] = value
    for needed in ("x0", "t_span"):
        if needed not in given:
            raise StudyError(f"[simulate] needs {needed}")
    return given


def _density(table: dict[str, Any] | None, paths: dict[str, Any] | None) -> dict[str, Any] | None:
    if table is None:
        return None
    _known("[density]", table, _DENSITY)
    given = {key: value if key == "start" else _value(f"[density] {key}", value) for key, value in table.items()}
    if "t_span" not in given and paths is not None:
        given["t_span"] = paths["t_span"]
    for needed in ("lower", "upper", "n_cells", "start", "t_span"):
        if needed not in given:
            raise StudyError(f"[density] needs {needed}")
    start = given.pop("start")
    if not isinstance(start, dict) or set(start) not in ({"point"}, {"mean", "std"}):
        raise StudyError(f"[density] start must be {{point = x}} or {{mean = m, std = s}}, got {start!r}")
    with _refused("[density]"):
        given["grid"] = Grid(given.pop("lower"), given.pop("upper"), given.pop("n_cells"))
        if "point" in start:
            given["p0"] = point_mass(given["grid"], start["point"])
        else:
            given["p0"] = gaussian(given["grid"], start["mean"], start["std"])
    return given


def _output(table: dict[str, Any], paths: Any, density: Any) -> dict[str, str]:
    _known("[output]", table, OUTPUTS)
    for key, value in table.items():
        if not isinstance(value, str) or (key != "folder" and pathlib.PurePath(value).name != value):
            what = "folder" if key == "folder" else "file in it"
            raise StudyError(f"[output] {key} must be the name of a {what}, got {value!r}")
    for key, suffix in (("results", ".npz"), ("states", ".npy"), ("summary", ".csv")):
        if key in table and not table[key].endswith(suffix):
            raise StudyError(f"[output] {key} must end in {suffix}, got {table[key]!r}")
    if "states" in table and paths is None:
        raise StudyError("[output] states are those of paths, and the file has no [simulate]")
    return dict(table)


def _value(where: str, value: Any) -> Any:
    """A value of the file, with its tables made into objects."""
    if isinstance(value, dict):
        return _made(where, value)
    if isinstance(value, list):
        return [_value(f"{where}[{i}]", item) for i, item in enumerate(value)]
    return value


def _made(where: str, table: dict[str, Any]) -> Any:
    """The object that a table describes: by ``class``, ``function`` (which is called) or ``reference`` (not called)."""
    kinds = [key for key in ("class", "function", "reference") if key in table]
    if len(kinds) != 1:
        raise StudyError(f"{where} needs one of class, function and reference, got {', '.join(kinds) or 'none'}")
    name, given = table[kinds[0]], {key: value for key, value in table.items() if key != kinds[0]}
    if not isinstance(name, str):
        raise StudyError(f"{where} {kinds[0]} must be a name, got {name!r}")
    if kinds[0] == "class":
        classes = _classes()
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else 'your own are made by function = "module:function"'
            raise StudyError(f"{where} knows no class {name!r}; {hint}")
        maker = classes[name]
    else:
        maker = _imported(where, name)
        if kinds[0] == "reference":
            _known(where, given, ())
            return maker
    return _called(where, name, maker, {key: _value(f"{where} {key}", value) for key, value in given.items()})


def _called(where: str, name: str, maker: Callable[..., Any], given: dict[str, Any]) -> Any:
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        parameters = None
    if parameters is not None and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        _known(f"{where} of {name}", given, parameters)
    with _refused(where):
        return maker(**given)


def _imported(where: str, name: str) -> Any:
    module, _, path = name.partition(":")
    if not path or not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise StudyError(f'{where}: {name!r} is not of the form "module:function"')
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise StudyError(f"{where}: {name!r} cannot be imported: {error}") from None
    return found


@contextlib.contextmanager
def _refused(where: str) -> Iterator[None]:
    """What the library refuses in a part of the file is an error of the file."""
    try:
        yield
    except (StudyError, CheckpointError):
        raise
    except (TypeError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from None


@contextlib.contextmanager
def _beside(folder: pathlib.Path) -> Iterator[None]:
    """Modules that lie beside the file can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


# ---- doing it -------------------------------------------------------------------------------------------------------


def run(study: Study, *, resume: bool = False, progress: Any = False, report: Callable[[str], Any] = print) -> None:
    """Do all that a study asks for; with ``resume`` what is in its checkpoints is not done again.

    Raises
    ------
    Interrupted
        After Ctrl-C or SIGTERM: the checkpoints are in the folder.
    StudyError
        For arguments that are refused, and for checkpoints of an earlier run without ``resume``.
    """
    _prepare(study, resume)
    paths = density = None
    if study.simulate is not None:
        with _refused("[simulate]"):
            paths = simulate(
                study.process, **study.simulate, out=study.place("states"), progress=progress,
                checkpoint=study.checkpoint("paths"),
            )  # fmt: skip
        if paths.message.startswith("interrupted"):
            raise Interrupted(paths.message)
        report(repr(paths))
    if study.density is not None:
        given = dict(study.density)
        with _refused("[density]"):
            density = evolve_density(
                study.process, given.pop("p0"), given.pop("grid"), given.pop("t_span"), **given, progress=progress,
                checkpoint=study.checkpoint("density"),
            )  # fmt: skip
        if not density.success:
            raise Interrupted(density.message)
        report(repr(density))
    for name in _write(study, paths, density):
        report(f"{name}: {study.place(name)}")
    for part in ("paths", "density"):
        file = study.checkpoint(part)
        for path in (file, file.with_name(file.name + ".previous")):
            path.unlink(missing_ok=True)


def _prepare(study: Study, resume: bool) -> None:
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"[output] folder {study.folder} cannot be made: {error.strerror}") from None
    for name in ("paths", "density"):
        if study.checkpoint(name).exists() and not resume:
            raise StudyError(
                f"{study.checkpoint(name)} is of a study that was not finished; pass --resume to go on with it, or "
                "delete it"
            )


def _write(study: Study, paths: Any, density: Any) -> Iterator[str]:
    """Write the outputs, one after the other; the names of those that are there."""
    if study.place("states") is not None:
        yield "states"
    if (place := study.place("results")) is not None:
        storage.write(place, "study", {"process": repr(study.process)}, _arrays(study, paths, density))
        yield "results"
    if (place := study.place("summary")) is not None:
        storage.write_bytes(place, _summary(paths, density).encode())
        yield "summary"
    if (place := study.place("plot")) is not None:
        _plot(place, paths, density)
        yield "plot"


def _arrays(study: Study, paths: Any, density: Any) -> dict[str, np.ndarray]:
    """Every array of the results, by names such as ``moments.mean`` and ``density.p``."""
    found: dict[str, np.ndarray] = {}
    if paths is not None:
        found["t"] = paths.t
        if not paths.reductions and study.place("states") is None:
            found["x"] = paths.x
        names: dict[str, int] = {}
        for result in paths.reductions:
            kind = type(result).__name__.removesuffix("Result").lower()
            names[kind] = names.get(kind, 0) + 1
            label = kind if names[kind] == 1 else f"{kind}{names[kind]}"
            found |= {f"{label}.{name}": value for name, value in _of_result(result).items()}
    if density is not None:
        found |= {"density.t": density.t, "density.p": density.p, "density.absorbed": density.absorbed}
        found |= {f"density.edges{k}": axis.edges for k, axis in enumerate(density.grid.axes)}
    return {name: _storable(value) for name, value in found.items()}


def _of_result(result: Any) -> dict[str, Any]:
    names = [name for name in dir(type(result)) if isinstance(inspect.getattr_static(type(result), name), property)]
    names += [f.name for f in dataclasses.fields(result)]
    values = {name: getattr(result, name) for name in names if not name.startswith("_")}
    return {name: v for name, v in values.items() if isinstance(v, (np.ndarray, float, int)) and name != "t"}


def _storable(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype in (np.float32, np.float64):
        return array
    return array.astype(np.int64 if array.dtype.kind in "biu" else np.float64)


def _summary(paths: Any, density: Any) -> str:
    """Mean and variance at the saved times, of paths and density, as CSV."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["of", "t", "component", "mean", "variance"])
    if paths is not None:
        moments = next((r for r in paths.reductions if type(r) is reductions.MomentsResult), None)
        if moments is not None:
            mean, variance = moments.mean, moments.variance
        elif not paths.reductions:
            mean, variance = paths.x.mean(axis=0), paths.x.var(axis=0, ddof=1 if paths.n_paths > 1 else 0)
        else:
            mean = variance = np.zeros((0, 1))
        _rows(table, "paths", paths.t, mean, variance)
    if density is not None:
        _rows(table, "density", density.t, density.mean, density.variance)
    return out.getvalue()


def _rows(table: Any, label: str, t: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
    for time, means, variances in zip(t, mean.reshape(len(mean), -1), variance.reshape(len(mean), -1), strict=False):
        for component, pair in enumerate(zip(means, variances, strict=True)):
            table.writerow([label, f"{time:.12g}", component, *(f"{value:.12g}" for value in pair)])


def _plot(place: pathlib.Path, paths: Any, density: Any) -> None:
    """The histogram of the paths beside the density where there are both, else what there is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from . import plot

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    counted = None if paths is None else next((r for r in paths.reductions if hasattr(r, "outside")), None)
    samples = counted if counted is not None else None if paths is None or paths.reductions else paths
    if density is not None and samples is not None and density.grid.dim == 1:
        plot.compare(samples, density, ax=ax)
    elif density is not None:
        plot.density(density, ax=ax)
    elif not paths.reductions:
        plot.paths(paths, ax=ax)
    elif isinstance(counted, reductions.HistogramResult) and isinstance(counted.edges, np.ndarray):
        ax.stairs(counted.density[-1], counted.edges)
        ax.set(xlabel="x", ylabel="density")
    else:
        raise StudyError("[output] plot: there is nothing to draw; add a [density], or a Histogram to reduce")
    drawn = io.BytesIO()
    with _refused("[output] plot"):
        figure.savefig(drawn, dpi=110, format=place.suffix.removeprefix(".") or "png")
    storage.write_bytes(place, drawn.getvalue())
