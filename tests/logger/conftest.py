"""The payload log's files as a program of their own makes them, for tests that read them with other people's readers.

`RECORDS_EXAMPLE` names the program. Without it nothing is tested, so its absence is an error and not a skip.
"""

import os

import pytest

from records import PROGRAM


def pytest_configure():
    path = os.environ.get(PROGRAM)
    if not path:
        raise pytest.UsageError(f"{PROGRAM} is not set; `make test-logger` sets it")
    if not os.access(path, os.X_OK):
        raise pytest.UsageError(f"{PROGRAM}={path} is not a program that can be run")
