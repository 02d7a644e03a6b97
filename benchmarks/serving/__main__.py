"""Load on a model server: `python -m benchmarks.serving --help`.

`tfmm serve` is started as a user starts it: with its defaults; without its memory of what it
answered, since sixteen queries come again and again here, more often than in any shop; and without
merging calls either. Beside it stand two servers that answer every call with the bytes of a
recorded reply. The same clients, in a process of their own on the same machine, ask each of them in
turn, again and again; ratios are taken within a turn. Then versions are published under a server at
work, which remembers nothing either.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.serving import queries, table
from benchmarks.serving.processes import (
    BenchmarkError,
    Clients,
    Server,
    constant_server,
    model_server,
    replies_of,
)
from benchmarks.serving.swaps import swap
from benchmarks.serving.table import Load, Measured
from tfmm.artifacts import latest_version
from tfmm.errors import TfmmError

CLIENTS = (1, 8, 32)
_KINDS_OF_CONSTANT = dict(zip(table.CONSTANT, ("threads", "loop"), strict=True))
# A loop of a few calls is no measurement: it only shows that everything works.
_QUICK = {
    "seconds": 0.2, "warm_up": 0.1, "repetitions": 1, "clients": [1, 4], "swaps": 2, "settle": 0.1,
}  # fmt: skip


def measure(model: Path, args: argparse.Namespace) -> list[str]:
    """Lines of the tables of one model.

    Raises:
      BenchmarkError: A server cannot be measured.
    """
    measured: dict[Load, dict[str, list[Measured]]] = {}
    sizes = []
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(model_server(model))
        fresh = stack.enter_context(model_server(model, "--reply_cache_mb=0"))
        unmerged = stack.enter_context(
            model_server(model, "--reply_cache_mb=0", "--enable_batching=false")
        )
        requests = {kind: queries.requests(kind, model.name) for kind in args.kinds}
        servers: dict[str, dict[str, Server]] = {}
        for kind in args.kinds:
            replies = replies_of(ours, requests[kind])
            for server in (fresh, unmerged):
                replies_of(server, requests[kind])
            sizes.append(f"{kind} {len(requests[kind][0])} and {len(replies[0])}")
            servers[kind] = {
                name: stack.enter_context(constant_server(how, replies))
                for name, how in _KINDS_OF_CONSTANT.items()
            } | {table.OURS: ours, table.FRESH: fresh, table.UNMERGED: unmerged}
        for turn in range(args.repetitions):
            for kind in args.kinds:
                for clients in args.clients:
                    print(f"turn {turn + 1}: {kind}, {clients} clients", file=sys.stderr)
                    load = measured.setdefault((kind, clients), {})
                    for name, server in servers[kind].items():
                        one = _measure(server, requests[kind], clients, args)
                        load.setdefault(name, []).append(one)
    about = f"bytes of a request and its reply: {', '.join(sizes)}"
    return [about, "", *table.lines(measured)]


def _measure(
    server: Server, requests: list[bytes], clients: int, args: argparse.Namespace
) -> Measured:
    before_s = server.cpu_s()
    running = Clients(
        server.address, requests, clients=clients, warm_up_s=args.warm_up, seconds=args.seconds
    )
    result = running.result()
    return Measured.of(result, server.cpu_s() - before_s)


def _parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=Path("saved_models/demo"))
    parser.add_argument("--kinds", nargs="+", choices=queries.KINDS, default=list(queries.KINDS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before each")
    parser.add_argument("--repetitions", type=int, default=3, help="turns through all servers")
    parser.add_argument("--swaps", type=int, default=20, help="versions published under load")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds after each swap")
    parser.add_argument("--quick", action="store_true", help="seconds in all; no measurement")
    args = parser.parse_args(words)
    if args.quick:
        vars(args).update(_QUICK)
    return args


def main(words: list[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    args = _parsed(sys.argv[1:] if words is None else words)
    try:
        version = latest_version(args.model)
        settings: Mapping[str, object] = {
            "seconds": args.seconds, "warm-up": args.warm_up, "repetitions": args.repetitions,
        }  # fmt: skip
        print(machine())
        print("median (least–largest);", ", ".join(f"{k} {v}" for k, v in settings.items()))
        if args.repetitions:
            print("\n".join(measure(args.model.resolve(), args)), flush=True)
        if args.swaps:
            most = max(args.clients)
            swapped = swap(version, args.swaps, settle_s=args.settle, clients=most)
            print("\n".join(table.swap_lines(swapped)))
    except (BenchmarkError, TfmmError) as error:
        print(f"benchmarks.serving: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
