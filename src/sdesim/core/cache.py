"""Compiled code kept on disk, safely.

Numba's own disk cache files an entry under a function's source file. It therefore misses whenever a function is
passed as an argument, never notices an edited callee, and raises when its folder is full, read-only or damaged. Here
a kernel is a fixed text that names globals it does not define. The text is written under a name that carries a
fingerprint of everything that can change what the kernel computes (its text, the versions, and the bytecode,
constants, globals and closures of every function it is given, followed into their callees); the functions are set
as globals of the module, and Numba's cache does the rest. A formula given as a lambda is found again by the next
process, an edited helper is not confused with the old one, and whatever befalls the folder costs one warning and a
compilation, never an answer.
"""

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import pathlib
import shutil
import sys
import tempfile
import textwrap
import threading
import time
import types
import warnings
from collections.abc import Iterator
from typing import Any

import llvmlite.ir
import numba
import numpy as np

LIMIT_BYTES = 200 * 2**20
# Modules whose content their version tells.
_VERSIONED = {"math", "cmath", "operator", "numpy", "numba", "scipy"}

_lock = threading.RLock()
_modules: dict[str, types.ModuleType] = {}
_state: dict[str, Any] = {"folder": None, "warned": False}


class NotCacheable(TypeError):
    """A compiled function refers to a value whose content cannot be fingerprinted."""


def load(text: str, names: dict[str, Any]) -> types.ModuleType:
    """The module made from ``text`` with the globals ``names``, its kernels compiled or taken from the disk.

    ``text`` may use the name ``CACHE`` where a decorator asks whether to cache.
    """
    with _lock:
        try:
            key = fingerprint(text, names)
        except NotCacheable:
            return _execute(text, names, None, cache=False)
        if key in _modules:
            return _modules[key]
        module = _from_folder(text, names, key)
        if len(_modules) >= 512:
            _modules.pop(next(iter(_modules)))
        _modules[key] = module
        return module


def _interruption(error: BaseException | None) -> BaseException | None:
    """The KeyboardInterrupt that an error comes from, or None.

    Ctrl-C on the way into or out of compiled code stays beside a result, and every caller in C makes a SystemError of
    what it was given.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error


class Kernel:
    """A compiled function of the library itself, made at its first call and kept like every other kernel."""

    def __init__(self, function: Any, options: str) -> None:
        self.py_func = function
        self.options = options
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self._module: types.ModuleType | None = None
        self._signatures = 0
        self._on_disk = True

    @property
    def dispatcher(self) -> Any:
        """Numba's dispatcher, for other compiled code to call."""
        if self._module is None:
            source = textwrap.dedent(inspect.getsource(self.py_func))
            text = f"from numba import njit\n\n@njit({self.options}, cache=CACHE)\n{source[source.index('def ') :]}"
            scope = self.py_func.__globals__
            used = sorted(all_names(self.py_func.__code__) & scope.keys())
            names = {name: _dispatcher(scope[name]) for name in used}
            self._module = load(text, names) if self._on_disk else _execute(text, names, None, cache=False)
        return getattr(self._module, self.__name__)

    def __call__(self, *arguments: Any) -> Any:
        dispatcher = self.dispatcher
        try:
            result = dispatcher(*arguments)
        except numba.core.errors.NumbaError:
            raise
        except Exception as error:
            if (interruption := _interruption(error)) is not None:
                raise interruption from None
            # the kernels compute with floats and raise nothing: this is the disk cache, read or written just now
            if not self._on_disk:
                raise
            _warn(f"compiled code could not be read or kept ({type(error).__name__}: {error})")
            self._forget()
            return self.dispatcher(*arguments)
        if len(dispatcher.overloads) != self._signatures:
            self._signatures = len(dispatcher.overloads)
            # a first call may also have compiled what this kernel calls, in modules of their own
            for module in list(_modules.values()):
                keep(module)
        return result

    def _forget(self) -> None:
        if self._module is not None and self._module.__file__:
            with contextlib.suppress(OSError):
                _discard(pathlib.Path(self._module.__file__))
        self._module, self._on_disk = None, False


def _dispatcher(value: Any) -> Any:
    return value.dispatcher if isinstance(value, Kernel) else value


def kernel(function: Any = None, *, fastmath: tuple[str, ...] = ()) -> Any:
    """Decorator of the library's own array kernels: compiled without the GIL, with NumPy's error model, on disk."""
    if function is None:
        return functools.partial(kernel, fastmath=fastmath)
    flags = f", fastmath={{{', '.join(map(repr, fastmath))}}}" if fastmath else ""
    return Kernel(function, f'nogil=True, error_model="numpy"{flags}')


def folder() -> pathlib.Path | None:
    """The folder that compiled code is kept in, or None where none can be written (asked once a process)."""
    if _state["folder"] is None:
        _state["folder"] = _find_folder()
    return _state["folder"] or None


def _wanted_folder() -> pathlib.Path:
    named = os.environ.get("SDESIM_CACHE_DIR")
    if named:
        return pathlib.Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base) / "sdesim"


def _find_folder() -> pathlib.Path | bool:
    path = _wanted_folder()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user")
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"x" * 4096)
            probe.flush()
        return path
    except OSError as error:
        _warn(f"compiled code is not kept on disk, because {path} cannot be written ({error})")
        return False


def _warn(message: str) -> None:
    if not _state["warned"]:
        _state["warned"] = True
        warnings.warn(f"{message}; set SDESIM_CACHE_DIR to another folder", RuntimeWarning, stacklevel=3)


def _from_folder(text: str, names: dict[str, Any], key: str) -> types.ModuleType:
    home = folder()
    if home is None:
        return _execute(text, names, None, cache=False)
    path = home / f"kernel_{key}.py"
    with _alone(path):
        return _kept(text, names, home, path)


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """One process at a time at a kernel: the others wait and load it, rather than compile it and write over it.

    Entries are written one by one and sealed when all are there; whoever looked in between would call them damaged.
    The lock belongs to the open file: it goes with its process, however that ends.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # no such locks there: each process compiles for itself
            import fcntl

            fcntl.flock(stack.enter_context(open(path.with_suffix(".lock"), "ab")), fcntl.LOCK_EX)
        yield


def _kept(text: str, names: dict[str, Any], home: pathlib.Path, path: pathlib.Path) -> types.ModuleType:
    try:
        fresh = not path.exists() or path.read_text(encoding="utf-8") != text
        if fresh:
            _prune(home)
            write_atomic(path, text.encode())
        _discard_damaged(path)
    except OSError as error:
        _warn(f"compiled code is not kept on disk ({error})")
        return _execute(text, names, None, cache=False)
    for attempt in range(2):
        try:
            module = _execute(text, names, path, cache=True)
        except numba.core.errors.NumbaError:
            raise
        except Exception as error:
            # Numba's cache answers a full disk or a broken entry with whatever its reader met. An entry that names the
            # module of another program, which had the same formula, is no fault of the folder.
            if not isinstance(error, ModuleNotFoundError):
                _warn(f"the compiled code in {home} could not be used ({type(error).__name__}: {error})")
            with contextlib.suppress(OSError):
                _discard(path)
            if attempt == 0 and not isinstance(error, OSError):
                continue
            return _execute(text, names, None, cache=False)
        keep(module)
        return module
    raise AssertionError("unreachable")


def _execute(text: str, names: dict[str, Any], path: pathlib.Path | None, cache: bool) -> types.ModuleType:
    stem = path.stem if path else f"kernel_{hashlib.sha256(text.encode()).hexdigest()[:16]}_{len(sys.modules)}"
    module = types.ModuleType(stem)
    module.__file__ = None
    module.__dict__.update(names, CACHE=cache)
    if path:
        module.__file__ = str(path)
        module.__spec__ = importlib.util.spec_from_file_location(stem, path)
    sys.modules[stem] = module
    elsewhere, numba.config.CACHE_DIR = numba.config.CACHE_DIR, ""
    try:
        exec(compile(text, str(path) if path else f"<{stem}>", "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(stem, None)
        raise
    finally:
        numba.config.CACHE_DIR = elsewhere
    return module


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Write a file whole or not at all: beside the target, synced, then moved over it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# Numba's files carry no checksum: a flipped bit would be run as machine code. A seal beside them says what they were.


def _entries(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted((path.parent / "__pycache__").glob(f"{path.stem}.*.nb*"))


def _digests(path: pathlib.Path) -> dict[str, str]:
    return {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in _entries(path)}


def _seal(path: pathlib.Path) -> None:
    seal, content = path.with_suffix(".seal"), json.dumps(_digests(path), sort_keys=True).encode()
    if not seal.exists() or seal.read_bytes() != content:
        write_atomic(seal, content)


def _discard_damaged(path: pathlib.Path) -> None:
    sound, sealed = _is_sound(path)
    if not sound:
        time.sleep(0.1)  # another process may be between writing an entry and sealing it
        sound, sealed = _is_sound(path)
    if not sound:
        if sealed:
            _warn(f"compiled code in {path.parent} was damaged and is compiled anew")
        _discard(path)


def _is_sound(path: pathlib.Path) -> tuple[bool, bool]:
    """Whether the entries are what the seal says, and whether it was set after them.

    A kernel of the library meets new types while it runs: their entries are written first and sealed when the call is
    over, seconds later. What is younger than its seal is not trusted, but it is no damage, of which a user should hear.
    """
    seal = path.with_suffix(".seal")
    found = _digests(path)
    if not seal.exists():
        return not found, False
    after = all(entry.stat().st_mtime_ns <= seal.stat().st_mtime_ns for entry in _entries(path))
    try:
        return not found or json.loads(seal.read_bytes()) == found, after
    except ValueError:
        return False, after


def _discard(path: pathlib.Path) -> None:
    for entry in [*_entries(path), path.with_suffix(".seal")]:
        entry.unlink(missing_ok=True)


def _prune(home: pathlib.Path) -> None:
    """Keep the folder below its limit: the kernels used least recently go first."""
    files = [(entry.stat(), entry) for entry in home.rglob("*") if entry.is_file()]
    total = sum(stat.st_size for stat, _ in files)
    if total <= LIMIT_BYTES:
        return
    for stat, entry in sorted(files, key=lambda pair: max(pair[0].st_atime, pair[0].st_mtime)):
        entry.unlink(missing_ok=True)
        total -= stat.st_size
        if total <= LIMIT_BYTES // 2:
            return


def keep(module: types.ModuleType) -> None:
    """Seal what the kernels of a module have compiled, where there are more types than at the last seal."""
    signatures = sum(len(getattr(value, "overloads", ())) for value in list(vars(module).values()))
    if module.__file__ and signatures != vars(module).get("__sealed__"):
        with _lock, contextlib.suppress(OSError):
            _seal(pathlib.Path(module.__file__))
            vars(module)["__sealed__"] = signatures


def clear() -> None:
    """Forget every kernel of this process and delete the folder's content."""
    with _lock:
        _modules.clear()
        home = folder()
        if home is not None:
            for entry in home.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


@functools.cache
def own_digest() -> str:
    """A digest of the package's sources: what they put into kernels behind the names (overloads, Numba passes)."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def fingerprint(text: str, names: dict[str, Any]) -> str:
    """A digest of the text, Numba's version and, by value, everything the names lead to."""
    versions = f"{numba.__version__} {np.__version__} {sys.version_info[:2]} {own_digest()}"
    digest = hashlib.sha256(f"{versions}\n{text}".encode())
    _feed(digest, tuple(sorted(names.items())), {})
    return digest.hexdigest()[:32]


def _feed(digest: Any, value: Any, seen: dict[int, int]) -> None:
    digest.update(type(value).__name__.encode())
    if id(value) in seen:
        digest.update(str(seen[id(value)]).encode())
    elif is_own(getattr(value, "py_func", value)):
        seen[id(value)] = len(seen)
        digest.update(f"{value.__module__}.{value.__qualname__}".encode())
    elif hasattr(value, "py_func"):
        seen[id(value)] = len(seen)
        # Private attribute, but the only place that says which options a dispatcher was made with.
        options = {k: v for k, v in getattr(value, "targetoptions", {}).items() if k != "pipeline_class"}
        digest.update(repr(sorted(options.items())).encode())
        _feed(digest, value.py_func, seen)
    elif isinstance(value, types.FunctionType):
        seen[id(value)] = len(seen)
        names = all_names(value.__code__)
        used = [(name, value.__globals__[name]) for name in sorted(names & value.__globals__.keys())]
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        _feed(digest, (value.__code__, value.__defaults__, cells), seen)
        _feed(digest, tuple(used), seen)
        for module in [item for item in (*dict(used).values(), *cells) if isinstance(item, types.ModuleType)]:
            if module.__name__.partition(".")[0] not in _VERSIONED:
                # Numba freezes the constants of a module as it does a global
                taken = sorted(names & vars(module).keys())
                _feed(digest, tuple((name, getattr(module, name)) for name in taken), seen)
    elif hasattr(value, "_defn"):  # a numba.extending.intrinsic
        _feed(digest, value._defn, seen)
    elif isinstance(value, types.CodeType):
        parts = (value.co_code, value.co_names, value.co_varnames, value.co_freevars, value.co_consts)
        _feed(digest, parts, seen)
    elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
        digest.update(f"{value.__name__}{value._fields}".encode())
    elif isinstance(value, (tuple, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        digest.update(str(len(value)).encode())
        for item in items:
            _feed(digest, item, seen)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype.str}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, types.ModuleType):
        digest.update(f"{value.__name__} {getattr(value, '__version__', '')}".encode())
    elif isinstance(value, (type, types.BuiltinFunctionType, np.ufunc, np.dtype, numba.types.Type, llvmlite.ir.Type)):
        digest.update(str(value).encode())
    elif value is None or value is Ellipsis or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        digest.update(repr(value).encode())
    else:
        raise NotCacheable(f"a {type(value).__name__} has no fingerprint")


def is_own(value: Any) -> bool:
    """Whether it is a function that stands in the package's own sources, which ``own_digest`` covers."""
    if not isinstance(value, types.FunctionType) or value.__closure__ or "<" in value.__qualname__:
        return False
    return (value.__module__ or "").partition(".")[0] == __package__.partition(".")[0]


def all_names(code: types.CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return set(code.co_names).union(*map(all_names, inner))
