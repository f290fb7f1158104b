"""When runs that are killed begin: with the session, where one process runs all tests.

They live in processes of their own and take half a minute, most of it to compile. What comes before their results are
asked for, files above all, is work for a single core.
"""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _begun(request):
    asked = [item.module.nurseries for item in request.session.items if "ordeals" in item.fixturenames]
    if not asked or "PYTEST_XDIST_WORKER" in os.environ:  # another worker may be the one that asks
        yield
        return
    children = asked[0]()
    yield
    for child in children:  # of a session that was ended
        if child.returncode is None:
            child.kill()
            child.communicate()
