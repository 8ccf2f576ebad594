"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# Tests run one process a core; more threads than that only wait for one another. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ARCHSPEC_NO_CACHE"] = "1"  # what a test counts is counted there and then


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """What one test compiled is nothing to the next: sizes seen before would make the compiler work with symbols."""
    yield
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()


@pytest.fixture
def double() -> Iterator[None]:
    """Whatever is computed at construction, such as a DCT's basis, is computed in float64."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` run where there is one."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="there is no GPU here"))
