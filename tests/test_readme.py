"""README and docs/: every block of code runs, on the emulator, and prints what is there; what is checked, is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import aisfast
from aisfast.emulator import Cluster

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


FENCED = re.compile(r"^```(\w*|\{eval-rst\})\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its first line, its text."""

    language: str
    line: int
    text: str


def blocks_of(text: str) -> list[Block]:
    return [
        Block(found[1], text.count("\n", 0, found.start()) + 2, found[2])
        for found in FENCED.finditer(text)
        if not found[1].startswith("{")  # no code: a directive of Sphinx
    ]


BLOCKS = blocks_of(README)
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN_ELSEWHERE = {"lhotse.md": "test_lhotse.py", "pytorch.md": "test_pytorch.py"}  # where what they need is installed


@pytest.fixture
def endpoint(ais_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    for name in list(os.environ):
        if name.startswith("AIS") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AIS_ENDPOINT", ais_cluster.endpoint)
    monkeypatch.chdir(tmp_path)
    return ais_cluster.endpoint


def test_no_block_is_left_out() -> None:
    assert [block.language for block in BLOCKS] == ["python", "text"] * 5 + ["console"]
    assert not [page for page in (ROOT / "README.md", *PAGES) if has_other_fences(page.read_text(encoding="utf-8"))]


def has_other_fences(text: str) -> bool:
    """Whether a fence is one that `blocks_of` does not see: indented, with tildes, or open."""
    return re.search(r"^\s*(```|~~~)", FENCED.sub("", text), re.MULTILINE) is not None


def test_python(endpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}  # one program, from top to bottom
    for code, output in zip(BLOCKS[:-1:2], BLOCKS[1:-1:2], strict=True):
        exec(compile("\n" * (code.line - 1) + code.text, "README.md", "exec"), names)
        assert capsys.readouterr().out == output.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_pages(endpoint: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, page: Path) -> None:
    """The code of a page is one program; what follows a block as text is what it prints."""
    if page.name in RUN_ELSEWHERE:
        assert page.name in (ROOT / "tests" / RUN_ELSEWHERE[page.name]).read_text(encoding="utf-8")
        return
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    assert {block.language for block in blocks} <= {"python", "text", "console"}
    if any("aistore" in block.text for block in blocks):
        pytest.importorskip("aistore.sdk.batch.types", reason="the official SDK is not installed")
    names: dict[str, Any] = {}
    for block, after in zip(blocks, [*blocks, None][1:], strict=True):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, page.name, "exec"), names)
            printed = capsys.readouterr().out
            assert printed == (after.text if after is not None and after.language == "text" else "")
        elif block.language == "console" and os.name == "posix":
            run_commands(block.text, tmp_path)
    if "client" in names and hasattr(names["client"], "_request_client"):
        names["client"]._request_client.session_manager.session.close()


def test_ten_lines_are_no_more() -> None:
    code = BLOCKS[0].text.strip().splitlines()
    assert len([line for line in code if line]) <= 10


def run_commands(text: str, tmp_path: Path) -> None:
    """Run what follows each `$ `; it prints what stands below it."""
    commands = tmp_path / "bin"
    commands.mkdir(exist_ok=True)
    (commands / "aisfast").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aisfast "$@"\n', encoding="utf-8")
    (commands / "aisfast").chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", expected), command


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_console(endpoint: str, tmp_path: Path) -> None:
    run_commands(BLOCKS[-1].text, tmp_path)


def test_links_lead_to_files_of_the_repository() -> None:
    for page in (ROOT / "README.md", *PAGES):
        links = re.findall(r"\]\((?!https://github\.com/)([^)]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).is_file()] == []
    assert set(re.findall(r"https?://[\w.-]+", README)) <= {"http://localhost"}


def test_the_changelog_has_a_place_for_what_is_next() -> None:
    assert re.search(r"^## \[Unreleased\]\n\n### Added\n\n- ", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def get(client: Any, names: list[str], *, streaming: bool) -> tuple[list[str], Exception | None]:
    """What `Batch.get()` hands out without `cont_on_err`, and how it ends."""
    got: list[str] = []
    try:
        batch = client.batch(names, bucket=client.bucket("b"), cont_on_err=False, streaming_get=streaming)
        got.extend(info.obj_name for info, _ in batch.get())
    except Exception as error:
        return got, error
    return got, None


NAMES = ["a", "b", "gone", "c"]


@pytest.fixture(params=["here", "on another target"])
def missing(request: pytest.FixtureRequest, ais_cluster: Cluster) -> Cluster:
    """A cluster whose first target answers next; the missing object would be there, or on another one."""
    for name in NAMES:
        if name != "gone":
            ais_cluster.put("b", name, b"data")
        ais_cluster.place("b", name, 1 if name == "gone" and request.param != "here" else 0)
    ais_cluster.next_dt = 0
    return ais_cluster


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_what_is_checked_without_cont_on_err(missing: Cluster, streaming: bool) -> None:
    with aisfast.Client(missing.endpoint) as client:
        got, error = get(client, NAMES, streaming=streaming)
    assert isinstance(error, aisfast.ErrObjNotFound)
    assert "b/gone" in str(error)
    assert got == (["a", "b"] if streaming else [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "buffered"])
def test_what_the_official_sdk_does_without_cont_on_err(
    missing: Cluster, streaming: bool, request: pytest.FixtureRequest
) -> None:
    sdk = pytest.importorskip("aistore.sdk", reason="the official SDK is not installed")
    here = "here" in request.node.callspec.params.values()
    client = sdk.Client(missing.endpoint)
    got, error = get(client, NAMES, streaming=streaming)
    client._request_client.session_manager.session.close()
    if here and not streaming:
        assert type(error).__name__ == "ErrObjNotFound"  # the server says so itself
    else:
        assert (got, error) == (["a", "b"] if here else NAMES, None)
