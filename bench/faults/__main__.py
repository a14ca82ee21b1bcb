"""`python -m bench.faults [NAME…]`: provokes faults with real processes and prints the results.

A *storm* provokes one kind of fault many times: its long count, with --quick a small one, or --count. With --results
its row of that file is replaced.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.faults import crowds, kills, machines, nights, outages, pauses
from bench.faults.results import write_row
from bench.faults.servers import STORES, Server, own_server, sqlite_url
from bench.faults.tally import Tally


@dataclass(frozen=True)
class Place:
    """What a storm needs: an empty store and an empty folder."""

    store: str
    url: str
    server: Server | None
    folder: Path


@dataclass(frozen=True)
class Storm:
    run: Callable[[Place, int, int], Tally]
    """Takes how often, and the seed."""
    long: int
    quick: int
    stores: tuple[str, ...] = STORES


def _outages(place: Place, count: int, seed: int, faster: int = 30) -> Tally:
    assert place.server is not None
    return outages.outages(place.server, place.store, place.folder, count, seed, faster=faster)


STORMS = {
    "kills": Storm(lambda p, count, seed: kills.kills(p.url, p.store, p.folder, count, seed), 1000, 30),
    "signals": Storm(lambda p, count, seed: kills.signals(p.url, p.store, p.folder, count, seed), 100, 5),
    "pauses": Storm(lambda p, count, seed: pauses.pauses(p.url, p.store, p.folder, count, seed), 50, 2),
    "outages": Storm(_outages, 50, 3, ("postgresql",)),
    "outages-in-real-time": Storm(lambda p, count, seed: _outages(p, count, seed, 1), 4, 1, ("postgresql",)),
    "silences": Storm(lambda p, count, seed: outages.silences(p.server, p.url, p.store, p.folder, count, seed), 6, 2),
    "machines": Storm(lambda p, count, seed: machines.bad_machines(p.url, p.store, p.folder, count, seed), 16, 4),
    "disks": Storm(lambda p, count, seed: machines.full_disks(p.url, p.store, p.folder, count, seed), 8, 4),
    "hangs": Storm(lambda p, count, seed: machines.hung(p.url, p.store, p.folder, count, seed), 20, 4),
    "outside": Storm(lambda p, count, seed: crowds.ended_outside(p.url, p.store, p.folder, count, seed), 20, 4),
    "crowd": Storm(lambda p, count, seed: crowds.many(p.url, p.store, p.folder, count, seed), 64, 8),
    "night": Storm(lambda p, count, seed: nights.night(p.server, p.url, p.store, p.folder, count, seed), 120, 6),
}


def rage(name: str, store: str, count: int, seed: int, folder: Path, server: Server | None) -> Tally:
    """One storm, in a store and a folder of its own."""
    folder.mkdir(parents=True)
    url = server.new_url() if server else sqlite_url(folder)
    return STORMS[name].run(Place(store, url, server, folder / "storm"), count, seed)


def main() -> int:
    """The exit code: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description="Faults, provoked on purpose.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(STORMS)}")
    parser.add_argument("--quick", action="store_true", help="small counts, as in the tests")
    parser.add_argument("--count", type=int, help="how often, instead of each storm's own count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=STORES, help="default: both")
    parser.add_argument("--results", type=Path, help="the table to write to")
    told = parser.parse_args()
    if unknown := [name for name in told.names if name not in STORMS]:
        parser.error(f"there is no storm {unknown[0]!r}; there are {', '.join(STORMS)}")
    is_clean = True
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="hpsearch-faults-"))
        stores = [told.store] if told.store else list(STORES)
        server = stack.enter_context(own_server()) if "postgresql" in stores else None
        for name in told.names or STORMS:
            count = told.count or (STORMS[name].quick if told.quick else STORMS[name].long)
            for store in [store for store in stores if store in STORMS[name].stores]:
                started = time.monotonic()
                used = server if store == "postgresql" else None
                tally = rage(name, store, count, told.seed, place / f"{name}-{store}", used)
                print(f"{tally}\n  {time.monotonic() - started:.0f} s", flush=True)
                is_clean = is_clean and tally.is_clean
                if told.results:
                    write_row(told.results, name, count, tally)
    if is_clean:
        shutil.rmtree(place)
    else:
        print(f"all logs and trials are in {place}")
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
