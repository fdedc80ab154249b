"""What all tests share: reproducible property tests, and measured numbers shown at the end of the run."""

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("eventnet", deadline=None, derandomize=True, max_examples=20, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=300, print_blob=True)  # --hypothesis-profile
settings.load_profile("eventnet")

_LINES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LINES] = []
    if "PYTEST_XDIST_WORKER" in os.environ:  # there is one for each core: more threads would only wait for each other
        torch.set_num_threads(1)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Call it with one line to be printed under the results, also if the test passes."""
    return request.config.stash[_LINES].append


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For modules of many small calls: idle threads that wait for work only take time from others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_LINES]:
        terminalreporter.section("measured")
        for line in config.stash[_LINES]:
            terminalreporter.write_line(line)
