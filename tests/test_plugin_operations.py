"""An operation of a plugin: counted by the formula that it declares, refused without one, unseen by other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import archspec
from archspec import counting, loading, registry
from archspec.errors import CountError

from .counted import SMALL, invoke, rows, said

FILTERED = SMALL.replace("mixer: {type: attention, heads: 2}", "mixer: global_filter")
FILTER = Path(__file__).parent / "data" / "global_filter.py"


class TestAnOperationOfAPlugin:
    @pytest.fixture(autouse=True)
    def _apart(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """What the plugin registers is gone afterwards."""
        registry.load_providers()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_loaded_plugins", set(registry._loaded_plugins))
        before = dict(counting.MACS)
        yield
        counting.MACS.clear()
        counting.MACS.update(before)

    def test_counts_as_its_formula_says(self, tmp_path: Path) -> None:
        file = tmp_path / "filtered.yaml"
        file.write_text(FILTERED)
        (row,) = rows(str(file), "--plugin", str(FILTER))
        without = archspec.count(archspec.make_plan(loading.load_text(FILTERED.replace("global_filter", "none"))))
        # There and back for each map: 4 x 4 pixels have a logarithm of 4, 2 x 2 of 2.
        assert row["macs"] - without.macs == 2 * (2 * 32 * 16 * 4 + 64 * 4 * 2)

    def test_without_one_it_is_refused_with_its_name_and_the_unit(self, tmp_path: Path) -> None:
        registry.load_plugin(FILTER)
        del counting.MACS[torch.ops.aten._fft_r2c]
        elsewhere = FILTERED.replace("size: 32", "size: 96")  # units that no test before has counted
        plan = archspec.make_plan(loading.load_text(elsewhere))
        with pytest.raises(CountError, match=r"stages\.0\.blocks\.0: the operation aten\._fft_r2c is neither counted"):
            archspec.count(plan)
        file = tmp_path / "filtered.yaml"
        file.write_text(elsewhere)
        done = invoke(str(file), "nommer_micro", "--json")
        assert done.exit_code == 1
        assert "aten._fft_r2c" in done.stderr
        assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["nommer_micro"]
        assert invoke(str(file), "vit_tyni").exit_code == 2  # a user's mistake beside it has the last word

    @pytest.mark.parametrize("tool", ["fvcore", "torch"])
    def test_other_tools_do_not_see_it_which_is_said(self, tool: str) -> None:
        registry.load_plugin(FILTER)
        _, explanation = said(archspec.make_plan(loading.load_text(FILTERED)), tool)
        unseen = {
            reason.why.split(", in ")[0][-13:]: reason.amount for reason in explanation.reasons if reason.amount < 0
        }
        assert unseen == {"aten._fft_r2c": -(2 * 32 * 64 + 64 * 8), "aten._fft_c2r": -(2 * 32 * 64 + 64 * 8)}
        assert explanation.unexplained == 0

    def test_its_network_learns(self) -> None:
        registry.load_plugin(FILTER)
        network = archspec.build(loading.load_text(FILTERED)).train()
        network(torch.randn(2, 3, 32, 32)).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_register_formula_is_public() -> None:
    assert archspec.register_formula is counting.register_formula
