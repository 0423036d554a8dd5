"""A black box served again: the answer it holds, byte for byte, to every GetBatch request.

The gateway's answer, if it is that one; else the gateway redirects to itself, and there it is. Then the connection is
closed: nothing is known of what came next. `GET /request` gives the body of the request that was recorded.
"""

from __future__ import annotations

import json
import shlex
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from aisfast.blackbox import load
from aisfast.emulator.httpd import Listeners, Request
from aisfast.messages import printable

_HOST = "127.0.0.1"
_INLINE = 4000  # bytes of a request that is shown whole
_MARKER = "pid=replay&utm=0"  # in the query of a redirected request
_JSON = [("Content-Type", "application/json")]


class Replay:
    """A server of one black box, as a context manager.

    Args:
        path: The file.
        port: 0: any that is free.
    Raises:
        OSError: The file cannot be read.
        ValueError: It is no black box, or does not hold the whole answer.
    """

    def __init__(self, path: str, port: int = 0) -> None:
        self._recorded = load(path)
        about = self._recorded.about
        if about["answer"]["left_out"]:
            raise ValueError(
                f"{path} cannot be served: of the answer's {about['answer']['bytes']} bytes the "
                f"{about['answer']['left_out']} behind the first {len(self._recorded.answer)} were not kept; the file "
                "tells what was wrong, and a batch with fewer bytes is kept whole"
            )
        self._port = port
        self._target = urlsplit(about["answer"]["url"]).path if about["answer"]["redirected"] else None
        self._listeners: Listeners | None = None
        self.endpoint = ""

    def __enter__(self) -> Replay:
        listeners = Listeners()
        try:
            self.endpoint = f"http://{_HOST}:{listeners.listen(_HOST, self._port, self._handle)}"
            listeners.start()
        except BaseException:
            listeners.stop()
            raise
        self._listeners = listeners
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listeners is not None:
            self._listeners.stop()
            self._listeners = None

    def _handle(self, request: Request) -> None:
        request.body()
        recorded = self._recorded
        if request.path == "/request" and recorded.request is not None:
            request.reply(200, recorded.request, _JSON)
        elif request.raw_query == _MARKER or (self._target is None and _asks_for_batch(request)):
            request.answered = request.close = True
            request.connection.send(recorded.answer)
        elif _asks_for_batch(request):
            request.reply(307, headers=[("Location", f"{self.endpoint}{self._target}?{_MARKER}")])
        else:
            text = f"a replay has no answer to {request.method} {request.path}: it holds one answer to GetBatch"
            request.reply(404, json.dumps({"message": text, "status": 404}).encode(), _JSON)

    def __str__(self) -> str:
        """What is in the file, and how to see it happen again."""
        about = self._recorded.about
        error, answer = about["error"], about["answer"]
        why = f"{error['type']}: {error['message']}"
        if error["raised"] != error["type"]:
            why = f"{error['raised']}, because of a {why}"
        lines = [
            f"written {about['written']} by aisfast {about['aisfast']} on Python {about['python']}",
            why,
            f"layer {error['layer'] or '-'}, offset {error['offset']}, expected {error['expected'] or '-'}, "
            f"found {error['found'] or '-'}, entry {error['entry'] or '-'}",
            f"the answer: {answer['bytes']} bytes from {answer['url']}, "
            f"{'then the end of the connection' if answer['closed'] else 'not read any further'}",
        ]
        if about["request"]["first"]:
            lines.append(
                f"the request was for the rest of a batch: its entry 0 was entry {about['request']['first']} there"
            )
        lines = [printable(line) for line in lines]
        if self._recorded.request is None:
            return "\n".join([*lines, f"the request of {about['request']['bytes']} bytes was not kept"])
        return "\n".join([*lines, "", self._curl(), "", self._python()])

    def _curl(self) -> str:
        """A command that asks as the client did."""
        url = urlsplit(self._recorded.about["request"]["url"])
        where = shlex.quote(f"{self.endpoint}{url.path}{'?' if url.query else ''}{url.query}")
        ask = "curl -sSL -X GET -H 'Content-Type: application/json' -o answer.bin"
        if self._short:
            return f"{ask} -d {shlex.quote(json.dumps(self._asked))} {where}"
        return f"curl -sS {self.endpoint}/request | {ask} --data-binary @- {where}"

    def _python(self) -> str:
        """The same in Python."""
        url = urlsplit(self._recorded.about["request"]["url"])
        bucket = unquote(url.path.partition("/v1/ml/moss/")[2])
        query = dict(parse_qsl(url.query))
        asked = self._asked
        own = {"bucket": bucket, "provider": query.get("provider")}
        simple = self._short and all({**own, **entry} == {**own, "objname": entry["objname"]} for entry in asked["in"])
        given = [f"[{', '.join(ascii(entry['objname']) for entry in asked['in'])}]"] if simple else []
        head = ["import aisfast"]
        if bucket:
            given.append(f"bucket=client.bucket({_bucket(bucket, query, head)})")
        mime = asked.get("mime") or ".tar"
        given += [f"output_format={mime!a}"] if mime != ".tar" else []
        given += ["only_obj_name=True"] if asked.get("onob") else []
        given += ["streaming_get=False"] if not asked.get("strm") else []
        lines = ["client = aisfast.Client()", f"batch = client.batch({', '.join(given)})"]
        if not simple:
            head += ["from json import load", "from urllib.request import urlopen"]
            head.append("from aisfast.sdk.batch.types import MossIn")
            lines += [
                f'asked = load(urlopen("{self.endpoint}/request"))["in"]',
                "batch.requests_list.extend(MossIn(**entry) for entry in asked)",
            ]
        lines.append('batch.fetch(missing="mark", policy=aisfast.Policy(resume=False))')
        return "\n".join([f"AIS_ENDPOINT={self.endpoint} python - <<'EOF'", *head, *lines, "EOF"])

    @property
    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = json.loads(self._recorded.request or b"")
        return asked

    @property
    def _short(self) -> bool:
        return len(self._recorded.request or b"") <= _INLINE


def _asks_for_batch(request: Request) -> bool:
    return "/v1/ml/moss" in request.path  # behind a path of the endpoint's own, perhaps


def _bucket(name: str, query: dict[str, str], imports: list[str]) -> str:
    """The arguments of `client.bucket()`."""
    given = [ascii(name)]
    if query.get("provider", "ais") != "ais":
        given.append(ascii(query["provider"]))
    if "namespace" in query:
        imports.append("from aisfast.sdk.namespace import Namespace")
        uuid, _, space = query["namespace"].lstrip("@").partition("#")
        given.append(f"namespace=Namespace({uuid!a}, {space!a})")
    return ", ".join(given)
