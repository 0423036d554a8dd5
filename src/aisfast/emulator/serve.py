"""The emulator as a program of its own."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aisfast.emulator import Cluster


def server_main(argv: Sequence[str] | None = None) -> int:
    """Run a cluster, or a replay, until SIGINT or SIGTERM. Prints one line with the endpoint when it is ready."""
    from aisfast.emulator.replay import Replay

    parser = argparse.ArgumentParser(
        prog="aisfast emulator", description="Run an AIStore-compatible cluster in one process."
    )
    parser.add_argument("--targets", type=int, default=1, metavar="N", help="number of targets (default 1)")
    parser.add_argument(
        "--port", type=int, default=8080, help="port of the proxy; targets take the next ones (default 8080, 0: any)"
    )
    parser.add_argument("--dir", metavar="DIR", help="keep objects as files in DIR (default: in memory)")
    parser.add_argument("--token", metavar="T", help="bearer token that the proxy demands")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="speak HTTPS with this certificate")
    parser.add_argument(
        "--tail-delay",
        type=float,
        default=0.1,
        metavar="S",
        help="seconds a target with peers holds back the end of an answer (default 0.1, as real ones do)",
    )
    parser.add_argument(
        "--max-wait", type=float, default=20.0, metavar="S", help="seconds to wait for a silent peer (default 20)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="make ids and the choice of targets repeatable")
    parser.add_argument(
        "--replay", metavar="FILE", help="serve the answer in a black box (AISFAST_BLACKBOX) instead; with --port alone"
    )
    args = parser.parse_args(argv)
    if args.replay is not None:
        for name, value in vars(args).items():
            if name not in ("replay", "port") and value != parser.get_default(name):
                parser.exit(2, f"aisfast emulator: --replay FILE does not go with --{name.replace('_', '-')}\n")
    try:
        server = Replay(args.replay, args.port) if args.replay is not None else _cluster(args)
    except ValueError as error:
        parser.exit(2, f"aisfast emulator: {error}\n")
    except OSError as error:
        parser.exit(1, f"aisfast emulator: {error}\n")
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with server:
            if isinstance(server, Replay):
                print(f"{server.endpoint} is ready: it replays {args.replay}; stop with Ctrl-C\n{server}", flush=True)
            else:
                where = f"objects in {args.dir}" if args.dir else "objects in memory"
                print(f"{server.endpoint} is ready: {args.targets} target(s), {where}; stop with Ctrl-C", flush=True)
            stop.wait()
    except (OSError, ValueError) as error:
        parser.exit(1, f"aisfast emulator: {error}\n")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _cluster(args: argparse.Namespace) -> Cluster:
    from aisfast.emulator import Cluster

    return Cluster(
        args.targets,
        args.tail_delay,
        port=args.port,
        dir=args.dir,
        token=args.token,
        tls=tuple(args.tls) if args.tls else None,
        seed=args.seed,
        max_wait=args.max_wait,
    )
