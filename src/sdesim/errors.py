"""Errors that have no built-in type of their own; each is also the built-in that users would catch."""


class NonFiniteError(RuntimeError):
    """Some paths became nan or infinite; the message names the first one, its step and its time."""


class CompileError(TypeError):
    """A coefficient is not a formula that Numba can compile; the message names the class and the reason."""


class MemoryLimitError(MemoryError):
    """The result would not fit into memory; the message proposes a smaller one."""


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says what is missing and what to do."""


class TrainingError(RuntimeError):
    """A training ended in a loss that is no number; ``fit`` has the last good weights."""

    def __init__(self, message: str, fit: object = None) -> None:
        super().__init__(message)
        self.fit = fit


class CheckpointError(ValueError):
    """A checkpoint cannot be gone on from: it is damaged, in use, or of a different run; the message says which."""


class WorkerError(RuntimeError):
    """Workers died and the work cannot go on; where one block kills them: its number ``block``, its ``paths``."""

    def __init__(self, message: str, block: int | None = None, paths: range | None = None) -> None:
        super().__init__(message)
        self.block, self.paths = block, paths
