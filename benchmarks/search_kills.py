"""Kills searches at random moments, goes on with them, and counts what was lost, doubled or stuck: nothing should be.

    python benchmarks/search_kills.py [--on local ray] [--who driver worker node] [--times 10] [--seed 0]

Each time, a search of 8 small networks on the digits, two at a time, is killed with SIGKILL: the driver, a worker that
trains, or the node process of Ray (its raylet). What is left of it goes on by itself, or is begun again with the same
command, until it ends well. Minutes for each row; with Ray, a cluster is started each time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the searches of the tests

from tests.killed_searches import check, finish, kill, results, start, wait_for_begin

PATIENCE = 240.0  # seconds for a search that goes on by itself; begun again it has as long
AGAIN = 3  # how often it is begun again


def whole(folder: Path, on: str) -> float:
    """Seconds between the first training and the end of a search that nobody kills."""
    process = start(folder, on)
    wait_for_begin(process, folder)
    began = time.monotonic()
    if finish(process, PATIENCE) != 0:
        raise SystemExit(f"the search fails without being killed: {(folder / 'log.txt').read_text()}")
    check(folder)
    return time.monotonic() - began


def killed(folder: Path, on: str, who: str, wait: float) -> str:
    """How a search came through: a word, or what is wrong with it."""
    process = start(folder, on)
    wait_for_begin(process, folder)
    time.sleep(wait)
    before = results(folder)
    if not kill(process, who, on):
        finish(process, PATIENCE)
        return "ended before"
    code = finish(process, PATIENCE)
    begun_again = 0
    while code != 0 and begun_again < AGAIN:
        begun_again += 1
        code = finish(start(folder, on), PATIENCE)
    if code != 0:
        return f"WRONG: exit code {code}, see {folder}"
    try:
        check(folder, before)
    except AssertionError as error:
        return f"WRONG: {error}, see {folder}"
    return "whole, by itself" if not begun_again else f"whole, begun again {begun_again}x"


def main() -> None:
    """Print how the searches came through."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs="+", choices=["local", "ray"], default=["local", "ray"])
    parser.add_argument("--who", nargs="+", choices=["driver", "worker", "node"], default=["driver", "worker", "node"])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    folder = Path(tempfile.mkdtemp(prefix="search_kills_"))
    failed = False
    for on in chosen.on:
        span = whole(folder / on / "whole", on)
        print(f"{on}: {span:.1f} s from the first training to the end, in {folder}", flush=True)
        for who in [one for one in chosen.who if (one, on) != ("node", "local")]:
            came = Counter(
                killed(folder / on / who / str(number), on, who, chance.uniform(0, 0.9 * span))
                for number in range(chosen.times)
            )
            failed |= any(how.startswith("WRONG") for how in came)
            print(f"{on}, {who}: " + "; ".join(f"{count} {how}" for how, count in came.most_common()), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
