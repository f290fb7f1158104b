"""How the suite runs on several processes, and in the background."""

import signal
import threading

import pytest

# Shells start background jobs with SIGINT ignored, which processes inherit; the tests of Ctrl-C need it.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Groups for ``--dist loadgroup``: a file compiles its kernels once, examples run in processes of their own.

    Batteries of others take a minute and find nothing new in the same code: they run where they are asked for.
    """
    asked = "battery" in config.getoption("markexpr")
    for item in items:
        if item.get_closest_marker("battery") and not asked:
            item.add_marker(pytest.mark.skip(reason="a battery of others; ask for it by -m battery"))
        if item.path.name != "test_examples.py":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
