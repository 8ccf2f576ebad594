"""How fast a cost is known, and whether it is right.

    python benchmarks/costs.py              times, and fvcore's beside them
    python benchmarks/costs.py --exact 1000 every shipped spec and 1,000 random networks: sum over units == whole trace

Times are medians. The first candidates start with an empty cache, after torch has been imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the random networks of the tests
NETWORKS = ("vit_small", "nommer_t", "sgformer_b", "mat_2", "partialformer_b1")
WIDTHS, MIXERS = (32, 64, 96, 128), ("attention", "fcvit", "mat", "s_nommer")


def median(call: Callable[[], object], *, times: int) -> float:
    """Seconds of a call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def candidates(count: int) -> None:
    """Random networks of one search space: width, depth and mixer of each stage of mat_2."""
    from archspec.errors import Place
    from archspec.loading import find_spec, load_tree
    from archspec.paths import Path as PatchPath
    from archspec.tree import from_plain
    from archspec.variants import Variants

    start = time.perf_counter()
    place = Place("benchmark")
    variants, draw = Variants(load_tree(find_spec("mat_2"))), random.Random(0)
    space = {}
    for stage in range(4):
        space[f"stages[{stage}].width"] = [width * 2**stage for width in WIDTHS]
        space[f"stages[{stage}].depth"] = [1, 2, 3, 4]
        space[f"stages[{stage}].mixer"] = list(MIXERS)
    parsed = {
        PatchPath.parse(path): [from_plain(choice, place) for choice in choices] for path, choices in space.items()
    }
    taken = []
    for _ in range(count):
        patches = [(path, draw.choice(choices)) for path, choices in parsed.items()]
        begun = time.perf_counter()
        variants.cost(patches)
        taken.append(time.perf_counter() - begun)
    print(
        f"{count:,} random candidates, empty cache: {time.perf_counter() - start:.2f} s "
        f"(median {1e6 * statistics.median(taken):.0f} us)"
    )


def known(name: str) -> None:
    """A network that was priced before: from the parsed spec, from the plan; fvcore on the built network."""
    from fvcore.nn import FlopCountAnalysis

    from archspec import api
    from archspec.cost import plan_cost, spec_cost

    plan = api.make_plan(name)
    spec, network = plan.spec, api.build(plan)
    image = torch.randn(1, plan.source.width, *plan.source.grid)

    spec_cost(spec)
    ours, from_plan = median(lambda: spec_cost(spec), times=500), median(lambda: plan_cost(plan), times=500)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    theirs = median(lambda: FlopCountAnalysis(network, image).total(), times=3)
    print(f"| {name} | {1e6 * ours:.0f} | {1e6 * from_plan:.0f} | {theirs:.2f} | {theirs / ours:,.0f} |", flush=True)


def exact(count: int) -> None:
    """The sum over a plan's units against one trace of the whole network, with its parameters: no difference at all."""
    import yaml

    from archspec import api
    from archspec.cost import module_cost
    from archspec.errors import SpecError
    from archspec.loading import load_text, shipped
    from archspec.network import Network
    from archspec.plan import Plan
    from tests.test_compositions import random_spec

    def differs(plan: Plan) -> bool:
        with torch.device("meta"):
            whole = Network(plan).eval()
            return module_cost(whole, torch.empty(1, plan.source.width, *plan.source.grid)) != api.count(plan)

    wrong = [name for name in shipped() if differs(api.make_plan(name))]
    print(f"shipped: {len(shipped())} networks, {len(wrong)} differ {wrong or ''}", flush=True)
    dice, built, refused, wrong = random.Random(2026), 0, 0, []
    while built < count:
        text = yaml.safe_dump(random_spec(dice), sort_keys=False)
        try:
            plan = api.make_plan(load_text(text))
        except SpecError:
            refused += 1
            continue
        built += 1
        wrong += [text] if differs(plan) else []
    print(f"random: {built} networks ({refused} more were refused), {len(wrong)} differ", *wrong, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=int, metavar="N")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ARCHSPEC_CACHE"] = folder
        if options.exact is not None:
            exact(options.exact)
            return
        candidates(2000)
        print("\n| network | from the spec, us | from the plan, us | fvcore, s | times faster |\n|---|---|---|---|---|")
        for name in NETWORKS:
            known(name)


if __name__ == "__main__":
    main()
