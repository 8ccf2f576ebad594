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


def whole(folder: Path, on: str) -> tuple[float, float]:
    """Seconds from the start to the first training, and from there to the end, of a search that nobody kills."""
    started = time.monotonic()
    process = start(folder, on)
    wait_for_begin(process, folder)
    began = time.monotonic()
    if finish(process, PATIENCE) != 0:
        raise SystemExit(f"the search fails without being killed: {(folder / 'log.txt').read_text()}")
    check(folder)
    return began - started, time.monotonic() - began


def killed(folder: Path, on: str, who: str, share: float, spans: tuple[float, float]) -> str:
    """How a search came through a kill after that share of its time: in words, or what is wrong with it."""
    process = start(folder, on)
    if who == "driver":
        time.sleep(share * sum(spans))
    else:  # it is there once something is trained
        wait_for_begin(process, folder)
        time.sleep(share * spans[1])
    before = results(folder)
    if not kill(process, who, on):
        finish(process, PATIENCE)
        return ""
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
    return f"whole, begun again {begun_again}x" if begun_again else "whole, by itself"


def kills(folder: Path, on: str, who: str, times: int, spans: tuple[float, float], chance: random.Random) -> list[str]:
    """How searches came through; one that had ended before it could be killed does not count."""
    came: list[str] = []
    for number in range(3 * times):
        how = killed(folder / str(number), on, who, chance.uniform(0, 0.9), spans)
        if how:
            came.append(how)
            print(f"{on}, {who}, {len(came)} of {times}: {how}", file=sys.stderr, flush=True)
        if len(came) == times:
            break
    return came


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
        spans = whole(folder / on / "whole", on)
        print(f"{on}: {spans[0]:.1f} s to the first training, {spans[1]:.1f} s to the end, in {folder}", flush=True)
        for who in [one for one in chosen.who if (one, on) != ("node", "local")]:
            came = Counter(kills(folder / on / who, on, who, chosen.times, spans, chance))
            failed |= any(how.startswith("WRONG") for how in came)
            print(f"{on}, {who}: " + "; ".join(f"{count} {how}" for how, count in came.most_common()), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
