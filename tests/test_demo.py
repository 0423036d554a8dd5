"""The demo at a tenth of its size: that it passes, that it notices, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

import aisfast
from aisfast import cli, demo
from aisfast.emulator import Cluster

FILES = "150"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AIS") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def is_gone(endpoint: str) -> bool:
    host, port = endpoint.partition("://")[2].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def test_on_an_emulator_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be on the way to it
    environment = dict(os.environ)
    assert cli.main(["demo", "--files", FILES]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    row = r"^  (get|stream|fetch)\(\) +150 +[\d.]+ +[\d.]+ +[\d,]+ +[\d.]+ +[\d.]+ +\d+%"
    rows = re.findall(row, out, re.MULTILINE)
    assert rows == ["get", "stream", "fetch"] * 2  # objects and members; ranges leave out empty files
    assert [line.split(", ")[1] for line in out.splitlines() if ", streaming" in line or ", buffered" in line] == [
        *["streaming"] * 3,
        "buffered",
    ]
    assert "150 files of Python's standard library" in out
    assert "all of them match" in out
    endpoint = re.search(r"http://\S+", out)
    assert endpoint is not None
    assert is_gone(endpoint[0])
    assert dict(os.environ) == environment


def test_beside_the_official_sdk(ais_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    sdk = pytest.importorskip("aistore.sdk", reason="the official SDK is not installed")
    if not hasattr(sdk.Client, "batch"):
        pytest.skip("this version of the official SDK has no Client.batch")
    assert cli.main(["demo", "--files", FILES, "--endpoint", ais_cluster.endpoint]) == 0
    out = capsys.readouterr().out
    assert out.count("\n  official SDK ") == 4
    assert len(re.findall(r"\d\.\dx$", out, re.MULTILINE)) == 12


def test_without_the_official_sdk(
    ais_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aistore", None)
    monkeypatch.setenv("AIS_ENDPOINT", ais_cluster.endpoint)
    assert cli.main(["demo", "--files", FILES]) == 0
    out = capsys.readouterr().out
    assert f"cluster at {ais_cluster.endpoint}" in out
    assert "of SDK" not in out
    assert "all of them match" in out
    with aisfast.Client() as client:
        assert client.cluster().list_buckets() == []


def test_what_does_not_match_is_named(
    ais_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: list[str] = []

    def fetch_all(client: Any, bucket: Any, stored: demo.Stored, *, emulated: bool) -> int:
        changed, cut, lost = [entry for entry in stored.objects[1:] if entry.size > 1000][:3]
        bucket.object(changed.name).get_writer().put_content(bytes(changed.size))
        bucket.object(cut.name).get_writer().put_content(bytes(10))
        bucket.object(lost.name).delete()
        names.extend((changed.name, cut.name, lost.name))
        return real(client, bucket, stored._replace(ranges=stored.ranges[:1]), emulated=emulated)

    real = demo._fetch_all
    monkeypatch.setattr(demo, "_fetch_all", fetch_all)
    monkeypatch.setitem(sys.modules, "aistore", None)
    assert demo.run(ais_cluster.endpoint, most=int(FILES)) == 1
    out = capsys.readouterr().out
    assert re.search(rf"WRONG: get\(\): {names[0]}: \d+ bytes came that differ from those stored", out)
    assert re.search(rf"WRONG: stream\(\): {names[1]}: \d+ bytes stored, 10 came", out)
    assert re.search(rf"WRONG: fetch\(\): {names[2]}: missing: ", out)
    assert "WRONG: 9 payloads are not what was stored" in out
    assert "match" not in out


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_terminated(ais_cluster: Cluster) -> None:
    for options in ([], ["--endpoint", ais_cluster.endpoint]):
        command = [sys.executable, "-m", "aisfast", "demo", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            endpoint = process.stdout.readline().split()[-1]
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
            assert (process.returncode, err) == (143, "")
        assert options or is_gone(endpoint)
    assert ais_cluster.store.buckets == {}
