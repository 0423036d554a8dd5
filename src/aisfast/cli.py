"""The `aisfast` command: thin shells around the library, which is imported when a command needs it.

Laws: an error is one line on stderr and an exit code (1: it failed, 2: the command line is wrong, 130: interrupted),
never a traceback. Results go to stdout and nothing else does. What servers and names contain reaches the terminal
printable.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from aisfast.errors import AISError, ErrBckNotFound, IncompleteBatchError
from aisfast.messages import FAILED, explain, printable
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast.client import Client

USAGE, INTERRUPTED, NO_READER = 2, 130, 141
BAR = 30  # characters of the progress bar
REDRAW = 0.1  # seconds between two drawings of it


class UsageError(Exception):
    """The command line asks for something that cannot be done."""


class Uri(NamedTuple):
    """`provider://bucket[/name[::archpath]]`, taken apart."""

    provider: str
    bucket: str
    name: str
    archpath: str

    def __str__(self) -> str:
        member = f"::{self.archpath}" if self.archpath else ""
        return f"{self.provider}://{self.bucket}/{self.name}{member}"


def parse_uri(text: str, needs: str = "") -> Uri:
    """The parts of a URI.

    Args:
        needs: "bucket": it must name one; "entry": it must name an object, and what follows the first "::" is the
            path of a file in that object, an archive.
    Raises:
        UsageError: It is no such URI.
    """
    from aisfast.enums import Provider

    provider, found, rest = text.partition("://")
    if not found:
        raise UsageError(f"{text!r} does not look like ais://bucket/object")
    bucket, _, name = rest.partition("/")
    if bucket.startswith(("@", "#")):
        raise UsageError(f"{text!r}: buckets in namespaces are not reached from the command line, use the Python API")
    name, _, archpath = name.partition("::") if needs == "entry" else (name, "", "")
    if (needs and not bucket) or (needs == "entry" and not name):
        raise UsageError(f"{text!r} names no {'object' if bucket else 'bucket'}")
    try:
        return Uri(Provider.parse(provider).value, bucket, name, archpath)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: Arguments without the program's name; None: those of the process.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["emulator"]:
        from aisfast.emulator import server_main

        return server_main(argv[1:])
    if argv[:1] == ["run"]:
        return _run(argv[1:])
    args = _parser().parse_args(argv)
    try:
        with _warnings_in_one_line():
            code: int = args.run(args)
            sys.stdout.flush()
            return code
    except UsageError as error:
        return _complain(str(error), USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; what is still buffered for them must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except (AISError, OSError, ValueError, NotImplementedError) as error:
        return _complain(explain(error), FAILED)


# ------------------------------------------------------------------------------------------------------------ commands


def _ls(args: argparse.Namespace) -> int:
    uri = parse_uri(args.uri) if args.uri else Uri("", "", "", "")
    with _client(args) as client:
        if not uri.bucket:
            for found in client.cluster().list_buckets(uri.provider):
                space = found.namespace.get_path() if found.namespace and found.namespace.get_path() != "@#" else ""
                print(printable(f"{found.provider}://{space + '/' if space else ''}{found.name}"))
            return 0
        for entry in client.bucket(uri.bucket, uri.provider).list_objects_iter(uri.name, "name,size"):
            name = printable(f"{uri.provider}://{uri.bucket}/{entry.name}")
            print(name if args.names else f"{entry.size:>12}  {name}")
    return 0


def _put(args: argparse.Namespace) -> int:
    uri = parse_uri(args.uri, "bucket")
    prefix = uri.name if uri.name.endswith("/") or not uri.name else f"{uri.name}/"
    files: dict[str, Path] = {}
    for path in map(Path, args.files):
        if not path.is_file():
            raise UsageError(f"{path}: {'a directory, name the files in it' if path.is_dir() else 'no such file'}")
        name = prefix + path.name
        if name in files:
            raise UsageError(f"{files[name]} and {path} would both become {uri.provider}://{uri.bucket}/{name}")
        files[name] = path
    with _client(args) as client:
        bucket = client.bucket(uri.bucket, uri.provider)
        if args.create:
            bucket.create(exist_ok=True)
        for name, path in files.items():
            try:
                bucket.object(name).get_writer().put_file(path)
            except ErrBckNotFound as error:
                error.remedy = "make it with --create"
                raise
            print(printable(f"{uri.provider}://{uri.bucket}/{name}"), flush=True)
    return 0


def _get(args: argparse.Namespace) -> int:
    from aisfast.download import check_apart, folder, relative_path, tar_file

    uris = [parse_uri(text, "entry") for text in [*args.uris, *_lines(args.from_file)]]
    if not uris:
        raise UsageError("nothing to get: name entries, or a file of them with --from-file")
    missing: list[tuple[int, str]] = []
    not_received: tuple[int, ...] = ()
    with _client(args) as client:
        try:
            batch = client.batch(bucket=client.bucket(uris[0].bucket, uris[0].provider))
            for uri in uris:
                batch.add(uri.name, archpath=uri.archpath, bck=uri.bucket, provider=uri.provider)
            paths = [relative_path(uri.name, uri.archpath) for uri in uris]
            if args.out is not None:
                check_apart(paths)
        except ValueError as error:
            raise UsageError(str(error)) from None
        output = folder(Path(args.out), paths) if args.out is not None else tar_file(args.tar, paths)
        try:
            with output as write, Progress(len(uris)) as progress, batch.stream(missing="mark") as items:
                for item in items:
                    if item.ok:
                        write(item.index, item.data)
                    else:
                        missing.append((item.index, str(item.err_msg)))
                    progress.count(item.size)
        except IncompleteBatchError as error:
            error.remedy = "ask again for what was not received"
            not_received = error.missing
            raise
        finally:
            for i, why in missing:
                _complain(f"missing: {uris[i]}: {why}")
            for i in not_received:
                _complain(f"not received: {uris[i]}")
    return FAILED if missing else 0


def _doctor(args: argparse.Namespace) -> int:
    from aisfast.doctor import examine

    return examine(args.endpoint)


def _demo(args: argparse.Namespace) -> int:
    from aisfast.demo import run

    return run(args.endpoint, most=args.files)


def _bench(args: argparse.Namespace) -> int:
    import json

    from aisfast.bench import Options, run
    from aisfast.bench.page import page
    from aisfast.bench.report import text
    from aisfast.demo import terminated_is_exit

    uri = parse_uri(args.bucket, "bucket") if "://" in args.bucket else Uri("ais", args.bucket, args.prefix, "")
    for name in ("batch", "seconds", "procs", "rate"):
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise UsageError(f"--{name} must be more than 0")
    endpoint = args.endpoint or os.environ.get("AIS_ENDPOINT")
    if uri.bucket and not endpoint:
        raise UsageError("--bucket needs a cluster: --endpoint, or AIS_ENDPOINT")
    options = Options(
        endpoint=endpoint, bucket=uri.bucket, provider=uri.provider, prefix=uri.name or args.prefix, batch=args.batch,
        seconds=args.seconds, procs=args.procs, rate=args.rate,
    )  # fmt: skip
    shows = sys.stderr.isatty()
    with terminated_is_exit():
        report = run(options, lambda line: print(f"aisfast: {printable(line)}", file=sys.stderr) if shows else None)
    print(text(report))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.html:
        Path(args.html).write_text(page(report), encoding="utf-8")
    return 0


RUN_HELP = """usage: aisfast run [--] COMMAND [ARGUMENT ...]

Run a program with the batches of its official SDK (aistore 1.16 to 2.x) accelerated, what it starts included.
COMMAND is a program, a Python script, or options for Python, such as -m MODULE. AISFAST_DISABLE=1 switches it off.
"""


def _run(command: list[str]) -> int:
    from aisfast.run import NOT_EXECUTABLE, NOT_FOUND, run

    if command in (["-h"], ["--help"]):
        print(RUN_HELP, end="")
        return 0
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        return _complain("run: nothing to run; see `aisfast run --help`", USAGE)
    try:
        return run(command)
    except FileNotFoundError as error:
        return _complain(str(error), NOT_FOUND)
    except OSError as error:
        return _complain(str(error), NOT_EXECUTABLE)


# -------------------------------------------------------------------------------------------------------- command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {printable(message)}; see `{self.prog} --help`\n")


def _parser() -> _Parser:
    parser = _Parser(prog="aisfast", description="A fast, exact client for AIStore's GetBatch API.")
    parser.add_argument("--version", action="version", version=f"aisfast {__version__}")
    where = {"metavar": "URL", "help": "gateway of the cluster (default: AIS_ENDPOINT, else http://localhost:8080)"}
    parser.add_argument("--endpoint", **where)  # type: ignore[arg-type]
    common = _Parser(add_help=False)
    common.add_argument("--endpoint", default=argparse.SUPPRESS, **where)  # type: ignore[arg-type]
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "store real files, get them back in batches, check every byte, tell how fast")
    demo.add_argument("--files", type=int, help=argparse.SUPPRESS)  # fewer files: for tests

    commands.add_parser("emulator", add_help=False, help="run a cluster for development in one process")  # see main()

    commands.add_parser("run", add_help=False, help="run a program with its official SDK accelerated")  # see main()

    ls = command("ls", _ls, "list buckets, or the objects of a bucket with their sizes in bytes")
    ls.add_argument("uri", nargs="?", metavar="ais://bucket[/prefix]", help="without a bucket: list buckets")
    ls.add_argument("--names", action="store_true", help="names alone, as `get --from-file` reads them")

    put = command("put", _put, "store files as objects")
    put.add_argument("files", nargs="+", metavar="FILE")
    put.add_argument("uri", metavar="ais://bucket[/prefix]", help="each FILE becomes the object prefix/FILE's name")
    put.add_argument("--create", action="store_true", help="make the bucket if it is not there")

    get = command("get", _get, "get objects, and files in archives, in one request")
    entry = "ais://bucket/object[::archpath]"
    name = "what follows the first :: is a file in an archive, so objects with :: in their names need the Python API"
    get.add_argument("uris", nargs="*", metavar=entry, help=name)
    get.add_argument("--from-file", metavar="LIST", help="read more of them from LIST, one a line (-: standard input)")
    to = get.add_mutually_exclusive_group(required=True)
    to.add_argument("--out", metavar="DIR", help="write each as DIR/object[/archpath]")
    to.add_argument("--tar", metavar="FILE", help="write all into one tar archive (-: standard output)")

    bench = command("bench", _bench, "measure what getting objects costs: official SDK, single GETs, aisfast")
    bench.add_argument("--bucket", default="", metavar="B", help="whose objects are got (default: some of our own)")
    bench.add_argument("--prefix", default="", metavar="P", help="of the objects' names")
    bench.add_argument("--batch", type=int, default=32, metavar="N", help="objects in a request (default: 32)")
    bench.add_argument("--seconds", type=float, default=10, metavar="S", help="for each way (default: 10)")
    bench.add_argument("--procs", type=int, default=1, metavar="N", help="processes that get at once (default: 1)")
    rate = "batches that arrive in a second, at all processes together; latency counts from their arrival"
    bench.add_argument("--rate", type=float, metavar="R", help=f"{rate} (default: one batch behind the other)")
    bench.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    bench.add_argument("--html", metavar="FILE", help="write a page with plots to FILE")

    command("doctor", _doctor, "check the way to the cluster: what works, what does not, and the remedy")
    return parser


def _client(args: argparse.Namespace) -> Client:
    from aisfast.client import Client

    try:
        return Client(args.endpoint)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _lines(file: str | None) -> Iterable[str]:
    if file is None:
        return []
    text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    return [line for line in text.split("\n") if line.strip()]


def _complain(text: str, code: int = FAILED) -> int:
    print(f"aisfast: {printable(text)}", file=sys.stderr)
    return code


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    def tell(message: Warning | str, *_: Any, **__: Any) -> None:
        _complain(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell
        yield


class Progress:
    """A line on stderr that tells how far a batch is; nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._entries = 0
        self._bytes = 0
        self._on = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def count(self, size: int) -> None:
        """One more entry, of `size` bytes."""
        self._entries += 1
        self._bytes += size
        if self._on and (now := time.monotonic()) - self._drawn >= REDRAW:
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        seconds = max(time.monotonic() - self._began, 1e-9)
        full = BAR * self._entries // self._total
        sys.stderr.write(
            f"\r[{'#' * full}{'.' * (BAR - full)}] {self._entries:,}/{self._total:,} entries  "
            f"{self._bytes / 1e6:,.1f} MB  {self._bytes / 1e6 / seconds:,.1f} MB/s\x1b[K"
        )
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            self._draw()
            sys.stderr.write("\n")
