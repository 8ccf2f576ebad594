"""Networks take other sizes than their spec's, or say that they do not."""

from __future__ import annotations

import pytest
import torch

from archspec import api
from archspec.errors import UsageError
from archspec.loading import shipped

from .makes import smallest_of_each_make

SIZES = [192, 256, 384, (256, 320)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_shipped_network_can_be_planned_for_another_size(size):
    for name in shipped():
        plan = api.make_plan(name, size=size)
        assert plan.source.grid == (size if isinstance(size, tuple) else (size, size))
        assert api.count(plan).macs > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", smallest_of_each_make(micro=False))
def test_a_built_network_takes_other_sizes(name):
    network = api.build(name)
    for height, width in ((192, 192), (256, 320)):
        image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            if name.startswith("mixer_"):
                with pytest.raises(UsageError, match="tokens"):
                    network(image)
            else:
                assert network(image).isfinite().all()
