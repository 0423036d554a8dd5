"""Faults on demand: a plan of what goes wrong, in which answer, and where in it.

`cluster.faults.add(action, ...)` plans one fault and returns it. It happens on real sockets, in the server's own words,
at the byte that was named, as often as was asked: what a mock of the client cannot show.

    cluster.faults.add("cut", entry=3, part="data")              # the next answer with four entries breaks off there
    cluster.faults.add("error", kind="busy", times=2)            # 429 to two requests
    cluster.faults.add("short", entry=5, bucket="train", nth=2)  # a valid archive of five entries, in the second answer
    fault = cluster.faults.add("stall", seconds=1, offset=70_000, times=None)  # in every answer that is so long
    ...
    assert fault.hits == 3

**Which answer.** `nth` counts the requests that match, from 1 since the fault was planned. `bucket`, `target` (index of
the target that answers), `when` (a function of a `Call`), and the entry named: a request without it does not match.
From the nth on, the fault happens `times` times (None: in every one that comes to its place).

**Where.** By default before the status line, of the target's answer, or with `leg="proxy"` of the proxy's.

- `entry=`, an index (negative: from the end) or an object name: before that entry.
- `entry=` with `part="header"`, `"data"` or `"padding"`: in the middle of that part of its member. A member that has no
  such part does not meet the fault.
- `part="trailer"`: before the archive's last 1024 bytes, in a ZIP before its directory. `part="end"`: after the body,
  before the terminal chunk.
- `offset=`: before that byte of the body; chunk framing does not count.

What the server would still hold in its buffers is sent before the fault happens. In a buffered answer an entry is
reached when the archive is assembled: a stall there delays the head; what breaks the connection does so where the entry
stands in the body.

**Formats.** Every fault works in every output format. In a compressed archive the parts are those of the TAR inside it,
the checksums around it are right, and what the compressor holds stays unsent (of a small archive all but its first
bytes); an `offset` is one of the compressed stream, so that `corrupt` damages it. In a ZIP `"header"` is the middle of
the local header's name, `"padding"` that of the descriptor behind the data, and a clean cut leaves no directory.

| action | what happens |
|---|---|
| `short` | the answer ends before the entry as if complete: trailer, terminal chunk; buffered: `out` is short too |
| `cut` | the connection is closed, inside a chunk; at `part="end"` only the terminal chunk lacks |
| `cut`, `clean=True` | the archive (with `offset`: the body) stops there, what frames it is complete |
| `reset` | as `cut`, by a reset |
| `stall` | nothing for `seconds` |
| `drip` | from there on `size` bytes (1) every `every` seconds (0.01) |
| `garbage` | `data` in place of a status line or chunk, then the connection is closed |
| `corrupt` | the byte there is inverted (an entry without `part`: in its header) |
| `rename` | the entry's member is called `name` |
| `duplicate` | the entry's member comes twice; `out` holds it once |
| `skip` | the entry's member does not come; `out` lacks it too |
| `swap` | the entry's member changes places with the next one; `out` keeps its order |
| `out` | buffered: `by` items more in the metadata (the last is repeated), or fewer if negative; 1 unless said |
| `miss` | the entry is reported missing though its object is there: a misplaced one, a cold one of a cloud bucket |
| `recover` | the whole object comes, whatever the range, after `seconds` of silence (the cluster's `max_wait`) |
| `slow_reader` | streaming: a client that does not take what comes for `seconds` is cut off; socket buffers are small |
| `empty` | 200, `Content-Length: 0`, nothing else |
| `error` | an error answer, by `kind`: one of `REFUSALS`, on the leg and with the words of a real server |
| `reply` | any answer: `status`, `body` (bytes), `headers` (pairs) |
| `abort` | the job is aborted on all targets: all running answers of its bucket end short, as if complete |
| `abort`, no entry | the job is aborted between the two legs: 400 `user abort` |
| `kill` | `cluster.kill(victim)`; no `victim`: the target that answers |
| `call` | `run(cluster)` is called |

With `request="object"` a fault is for GET and HEAD of objects, each leg counted for itself: `cut`, `reset`, `stall`,
`garbage`, `error` of kind `rate-limit`, `reply`, `kill`, `call`, always before the status line.
`cluster.kill` and `cluster.restore` are for whole targets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from aisfast.emulator.refusals import REFUSALS
from aisfast.emulator.script import Script

if TYPE_CHECKING:
    from aisfast.emulator import Cluster
    from aisfast.emulator.batch_request import Entry
    from aisfast.emulator.store import Bucket

__all__ = ["REFUSALS", "Call", "Fault", "Faults"]


class Call(NamedTuple):
    """A request, as `when` sees it."""

    request: str  # "batch" or "object"
    method: str
    bucket: str  # that of the path, or else of the first entry
    target: int  # index of the target that answers
    names: list[str]  # object names of the entries
    streaming: bool


_REQUIRED = object()
_PARTS = ("header", "data", "padding")
_ENDS = ("trailer", "end")


class _Action(NamedTuple):
    places: str  # what may say where: head, entry, byte
    options: Mapping[str, Any] = MappingProxyType({})  # name → default
    streaming: bool | None = None  # only in this mode


_ANYWHERE = "head entry byte"
_ACTIONS = {
    "short": _Action("entry"),
    "cut": _Action(_ANYWHERE, {"clean": False}),
    "reset": _Action(_ANYWHERE),
    "stall": _Action(_ANYWHERE, {"seconds": _REQUIRED}),
    "drip": _Action(_ANYWHERE, {"size": 1, "every": 0.01}),
    "garbage": _Action(_ANYWHERE, {"data": b"\x16\x03\x01\x02 this is not HTTP\r\n\r\n"}),
    "corrupt": _Action("entry byte"),
    "rename": _Action("entry", {"name": _REQUIRED}),
    "duplicate": _Action("entry"),
    "skip": _Action("entry"),
    "swap": _Action("entry"),
    "out": _Action("", {"by": 1}, streaming=False),
    "miss": _Action("entry"),
    "recover": _Action("entry", {"seconds": None}),
    "slow_reader": _Action("", {"seconds": _REQUIRED}, streaming=True),
    "empty": _Action("head"),
    "error": _Action("head", {"kind": _REQUIRED}),
    "reply": _Action("head", {"status": _REQUIRED, "body": b"", "headers": ()}),
    "abort": _Action("head entry"),
    "kill": _Action(_ANYWHERE, {"victim": None}),
    "call": _Action(_ANYWHERE, {"run": _REQUIRED}),
}
_ON_OBJECTS = ("cut", "reset", "stall", "garbage", "error", "reply", "kill", "call")


@dataclass(eq=False, repr=False)
class Fault:
    """One planned fault, and how often it has happened. Made by `Faults.add`, which explains the arguments.

    Attributes:
        hits: How often it has happened.
    """

    action: str
    nth: int = 1
    times: int | None = 1
    bucket: str | None = None
    target: int | None = None
    when: Callable[[Call], bool] | None = None
    request: str = "batch"
    leg: str | None = None
    entry: int | str | None = None
    part: str | None = None
    offset: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    hits: int = 0
    seen: int = 0  # requests that matched

    def __post_init__(self) -> None:
        self._happened = threading.Event()
        given = [(f.name, getattr(self, f.name)) for f in fields(self)[1:11] if getattr(self, f.name) != f.default]
        self._shown = ", ".join(
            [repr(self.action), *(f"{name}={value!r}" for name, value in [*given, *self.options.items()])]
        )

    def __repr__(self) -> str:
        return f"<Fault {self._shown}: happened {self.hits} of {'any' if self.times is None else self.times}>"

    def wait(self, timeout: float = 10.0) -> bool:
        """Wait until it has happened once. False if it did not within `timeout` seconds."""
        return self._happened.wait(timeout)

    def happened(self) -> None:
        self.hits += 1
        self._happened.set()

    @property
    def placed(self) -> bool:
        return not (self.entry is None and self.part is None and self.offset is None)

    def can(self, place: str) -> bool:
        """May it happen at this kind of place: "head", "entry" or "byte"?"""
        return place in _ACTIONS[self.action].places

    def check(self, targets: int) -> None:
        """Raises ValueError for what cannot be; fills in defaults."""
        action = _ACTIONS.get(self.action)
        if action is None:
            raise self._impossible(f"no such action; there are {', '.join(_ACTIONS)}")
        for name in self.options:
            if name not in action.options:
                raise self._impossible(f"'{self.action}' has no option '{name}'")
        for name, default in action.options.items():
            if self.options.setdefault(name, default) is _REQUIRED:
                raise self._impossible(f"'{self.action}' needs {name}=")
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise self._impossible("nth and times are 1 or more")
        for index in (self.target, self.options.get("victim")):
            if index is not None and not 0 <= index < targets:
                raise self._impossible(f"there is no target {index} among {targets}")
        self._check_place(action.places)
        self._check_options()

    def _check_place(self, places: str) -> None:
        if self.request not in ("batch", "object"):
            raise self._impossible("request is 'batch' or 'object'")
        if self.part not in (None, *_PARTS, *_ENDS):
            raise self._impossible(f"part is one of {', '.join((*_PARTS, *_ENDS))}")
        if self.offset is not None and (self.offset < 0 or self.entry is not None or self.part is not None):
            raise self._impossible("offset is 0 or more, and stands alone: without entry and part")
        if (self.part in _PARTS) != (self.part is not None and self.entry is not None):
            raise self._impossible("header, data and padding are parts of an entry; trailer and end are not")
        if self.placed and "entry" not in places:
            raise self._impossible(f"'{self.action}' has no place in the body")
        if (self.part is not None or self.offset is not None) and "byte" not in places:
            raise self._impossible(f"'{self.action}' happens to whole entries, not inside them")
        if not self.placed and "head" not in places and "entry" in places:
            raise self._impossible(f"'{self.action}' needs entry=" + " or offset=" * ("byte" in places))
        if self.part == "end" and (self.action in ("corrupt", "drip") or self.options.get("clean")):
            raise self._impossible("nothing of the body comes after its end")
        if self.request == "object" and (self.placed or self.action not in _ON_OBJECTS):
            raise self._impossible(f"on objects there is {', '.join(_ON_OBJECTS)}, before the status line")
        if self.leg not in (None, "proxy", "target"):
            raise self._impossible("leg is 'proxy' or 'target'")
        if self.leg == "proxy" and (self.placed or "head" not in places or self.action in ("drip", "empty", "abort")):
            raise self._impossible("that happens to the target's answer; the proxy only redirects")
        if self.action == "drip" and not self.placed:
            self.offset = 0
        if self.action == "corrupt" and self.entry is not None and self.part is None:
            self.part = "header"

    def _check_options(self) -> None:
        options = self.options
        for name in ("seconds", "every"):
            value = options.get(name)
            if value is not None and not 0 <= value <= threading.TIMEOUT_MAX:
                raise self._impossible(f"{name} is a finite number, 0 or more")
        if options.get("size", 1) < 1:
            raise self._impossible("size is 1 or more")
        if options.get("by") == 0:
            raise self._impossible("by=0 changes nothing")
        if self.action == "cut" and options["clean"] and not self.placed:
            raise self._impossible("a clean cut needs a place in the body")
        if self.action == "rename" and not options["name"]:
            raise self._impossible("a member needs a name")
        if self.action == "call" and not callable(options["run"]):
            raise self._impossible("run is a function of the cluster")
        if self.action == "reply" and not 200 <= options["status"] <= 599:
            raise self._impossible("status is 200 to 599")
        if self.action == "error":
            error = REFUSALS.get(options["kind"])
            if error is None:
                raise self._impossible(f"no such kind; there are {', '.join(REFUSALS)}")
            if (options["kind"] == "rate-limit") != (self.request == "object"):
                raise self._impossible("'rate-limit' is for objects, and the only kind that is")
            leg = "target" if error.leg == "target" else "proxy"
            if self.leg not in (None, leg):
                raise self._impossible(f"'{options['kind']}' comes from the {leg}")
            self.leg = leg
        self.leg = self.leg or "target"

    def _impossible(self, why: str) -> ValueError:
        return ValueError(f"fault {self._shown}: {why}")

    def index_in(self, call: Call) -> int | None:
        """Index of its entry in a request: None if the request has no such entry, 0 for a fault without an entry."""
        if self.entry is None:
            return 0
        count = len(call.names)
        if isinstance(self.entry, str):
            index = call.names.index(self.entry) if self.entry in call.names else count
        else:
            index = self.entry + count if self.entry < 0 else self.entry
        return index if 0 <= index < count - (self.action == "swap") else None

    def matches(self, call: Call) -> bool:
        if self.request != call.request or self.bucket not in (None, call.bucket):
            return False
        if self.target not in (None, call.target):
            return False
        mode = _ACTIONS[self.action].streaming
        if self.action == "error" and REFUSALS[self.options["kind"]].buffered:
            mode = False
        if mode not in (None, call.streaming) or self.index_in(call) is None:
            return False
        return self.when is None or bool(self.when(call))


class Faults:
    """The plan of a cluster: what is to go wrong. Iterating gives the faults, spent ones too."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._plan: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        action: str,
        *,
        nth: int = 1,
        times: int | None = 1,
        bucket: str | None = None,
        target: int | None = None,
        when: Callable[[Call], bool] | None = None,
        request: str = "batch",
        leg: str | None = None,
        entry: int | str | None = None,
        part: str | None = None,
        offset: int | None = None,
        **options: Any,
    ) -> Fault:
        """Plan one fault. The module's text tells all actions, places and options.

        Args:
            action: What happens.
            nth: In which of the requests that match, from 1; and in those after it until it has happened `times` times.
            times: How often; None: whenever its place is reached.
            bucket: Only requests of this bucket.
            target: Only answers of the target with this index.
            when: Only requests for which it is true.
            request: "batch", or "object" for GET and HEAD of objects.
            leg: "target" or "proxy": whose answer. For what happens before a status line.
            entry: Index or object name of the entry before or in which it happens.
            part: "header", "data" or "padding" of the entry; or "trailer" or "end" of the answer.
            offset: Byte of the body before which it happens.
            options: What the action needs to know.
        Raises:
            ValueError: There is no such fault.
        """
        fault = Fault(action, nth, times, bucket, target, when, request, leg, entry, part, offset, options)
        fault.check(len(self._cluster.smap.targets))
        with self._lock:
            self._plan = [*self._plan, fault]
        return fault

    def clear(self) -> None:
        """Forget the whole plan. An answer in progress may still meet what was planned for it."""
        self._plan = []

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    def __repr__(self) -> str:
        return "\n".join([f"<Faults: {len(self)} planned>", *(f"  {fault!r}" for fault in self)])

    # -- for the serving code

    def for_batch(self, bucket: Bucket, target: int, entries: list[Entry], streaming: bool) -> Script | None:
        """The faults that the answer to this request may meet."""
        if not self._plan:
            return None
        names = [entry.name for entry in entries]
        return self._script(Call("batch", "GET", bucket.name, target, names, streaming), bucket)

    def for_object(self, leg: str, method: str, bucket: Bucket, target: int, name: str) -> Script | None:
        """The same for an object's GET or HEAD, of one leg."""
        if not self._plan or method not in ("GET", "HEAD"):
            return None
        return self._script(Call("object", method, bucket.name, target, [name], False), bucket, leg)

    def take(self, fault: Fault) -> bool:
        """Its place is reached: does it happen?"""
        with self._lock:
            if fault.times is not None and fault.hits >= fault.times:
                return False
            fault.happened()
            return True

    def _script(self, call: Call, bucket: Bucket, leg: str | None = None) -> Script | None:
        armed = []
        for fault in self._plan:
            if leg in (None, fault.leg) and fault.matches(call):
                with self._lock:
                    fault.seen += 1
                    if fault.seen >= fault.nth and (fault.times is None or fault.hits < fault.times):
                        armed.append(fault)
        return Script(self._cluster, call, bucket, armed) if armed else None
