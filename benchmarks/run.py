"""One command for every measurement: ratios within one run, in turns, on the disk that the stores
are on.

Nothing is compared across runs, because machines differ and change their speed; medians are printed
with all of their spread; Perdure and its peers have the same work and the same durability. What
each scenario and setting means is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path

from driving import can_slow, peers
from plot import bars
from queue_scenarios import QUEUE_SCENARIOS
from scenarios import QUICK, Bench, Sizes
from scenarios import SCENARIOS as RUN_SCENARIOS
from tables import Table, text

SCENARIOS = {**RUN_SCENARIOS, **QUEUE_SCENARIOS}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--only",
        action="append",
        choices=SCENARIOS,
        metavar="SCENARIO",
        help=f"again for several: {', '.join(SCENARIOS)}",
    )
    made.add_argument("--rounds", type=int, help="turns for each system (default 5)")
    made.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes: shows that everything works, measures nothing",
    )
    made.add_argument(
        "--without-peers", action="store_true", help="only Perdure and the raw commit"
    )
    made.add_argument(
        "--peer",
        action="append",
        metavar="NAME",
        help="only peers whose name begins so (dbos, restate)",
    )
    made.add_argument(
        "--peer-share",
        type=float,
        default=0.2,
        help="part of the work that peers get (default 0.2; 20: all)",
    )
    made.add_argument("--peer-rounds", type=int, default=3, help="turns for each peer (default 3)")
    made.add_argument(
        "--slow",
        type=int,
        action="append",
        metavar="MS",
        help="extra ms for each sync, again for several (default 0, 1, 5)",
    )
    made.add_argument(
        "--folder", type=Path, help="where the stores are made (default: a temporary folder)"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    made.add_argument("--plot", type=Path, metavar="FILE", help="write the ratios as an SVG file")
    return made


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds, imports=options.rounds * 2)
    others = [] if options.without_peers else peers([name.lower() for name in options.peer or []])
    delays = options.slow if options.slow is not None else [0] if options.quick else [0, 1, 5]
    if any(delays) and can_slow():
        print(f"no slow disks: {can_slow()}")
        delays = [0]
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} "
        f"cores, {platform.platform()}\n"
    )
    tables: list[Table] = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="pb-") as name:
        bench = Bench(Path(name), sizes, others, options.peer_share, options.peer_rounds)
        for slow_ms in delays:
            for scenario in options.only or SCENARIOS:
                for table in SCENARIOS[scenario](bench, slow_ms):
                    print(text(table), flush=True)
                    tables.append(table)
    if options.json:
        options.json.write_text(json.dumps([table.to_json() for table in tables], indent=1))
    if options.plot:
        options.plot.write_text(bars(tables))


if __name__ == "__main__":
    main()
