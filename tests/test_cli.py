"""The commands against the emulator: what they write, what they say, how they end."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trustme

from aisfast import cli, download, messages
from aisfast.emulator import Cluster
from aisfast.errors import AISError
from aisfast.version import __version__


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from the environment; a directory of one's own."""
    for name in list(os.environ):
        if name.startswith("AIS") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cluster(ais_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that commands find, with a bucket of three objects; one is an archive."""
    monkeypatch.setenv("AIS_ENDPOINT", ais_cluster.endpoint)
    ais_cluster.put("b", "a.txt", b"hello")
    ais_cluster.put("b", "dir/empty", b"")
    ais_cluster.put("b", "s.tar", shard({"1.txt": b"one", "x/2.txt": b"two"}))
    return ais_cluster


def shard(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def files_below(folder: str) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was complained about: one line, and nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("aisfast")
    assert err.count("\n") == 1
    return err


# ------------------------------------------------------------------------------------------------------------- get


def test_get_into_a_directory(cluster: Cluster) -> None:
    assert cli.main(["get", "ais://b/a.txt", "ais://b/dir/empty", "ais://b/s.tar::x/2.txt", "--out", "out"]) == 0
    assert files_below("out") == {"a.txt": b"hello", "dir/empty": b"", "s.tar/x/2.txt": b"two"}
    cluster.put("b", "a.txt", b"hello again")
    assert cli.main(["get", "ais://b/a.txt", "ais://b/a.txt", "--out", "out"]) == 0
    assert files_below("out")["a.txt"] == b"hello again"


def test_get_from_several_buckets(cluster: Cluster) -> None:
    cluster.put("c", "other.txt", b"c's")
    assert cli.main(["get", "ais://b/a.txt", "ais://c/other.txt", "--out", "out"]) == 0
    assert files_below("out") == {"a.txt": b"hello", "other.txt": b"c's"}


def test_get_into_a_tar(cluster: Cluster) -> None:
    long = "n" * 90 + "/" + "ü" * 200
    cluster.put("b", long, b"x" * 1000)
    Path("list").write_text(f"ais://b/s.tar::1.txt\n\nais://b/{long}\nais://b/s.tar::1.txt\n", encoding="utf-8")
    assert cli.main(["get", "ais://b/a.txt", "--from-file", "list", "--tar", "out.tar"]) == 0
    with tarfile.open("out.tar") as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    assert members == [("a.txt", b"hello"), ("s.tar/1.txt", b"one"), (long, b"x" * 1000), ("s.tar/1.txt", b"one")]
    assert Path("out.tar").stat().st_size % 512 == 0
    assert sorted(os.listdir()) == ["list", "out.tar"]


def test_get_from_stdin_to_stdout(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ais://b/a.txt\n"))
    assert cli.main(["get", "--from-file", "-", "--tar", "-"]) == 0
    with tarfile.open(fileobj=io.BytesIO(capsysbinary.readouterr().out)) as tar:
        assert tar.getnames() == ["a.txt"]


@pytest.mark.parametrize("to", [["--out", "out"], ["--tar", "out.tar"]])
def test_get_names_what_is_missing_and_writes_the_rest(
    cluster: Cluster, to: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["get", "ais://b/no", "ais://b/a.txt", "ais://b/s.tar::no", "ais://b/s.tar::1.txt", *to]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.rpartition(": ")[0] for line in err.splitlines()] == [
        "aisfast: missing: ais://b/no",
        "aisfast: missing: ais://b/s.tar::no",
    ]
    if to[0] == "--tar":
        with tarfile.open("out.tar") as tar:
            assert tar.getnames() == ["a.txt", "s.tar/1.txt"]
    else:
        assert files_below("out") == {"a.txt": b"hello", "s.tar/1.txt": b"one"}


def test_get_says_what_an_incomplete_batch_lacks(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"ais://b/no{i}" for i in range(12)]
    cluster.faults.add("short", entry=3)
    cluster.faults.add("reply", status=403, nth=2)  # to the request for the rest
    assert cli.main(["get", "ais://b/a.txt", *names, "--out", "out"]) == 1
    lines = capsys.readouterr().err.splitlines()
    named = [line.split(": ")[2] for line in lines[:-1]]
    assert {line.split(": ")[1] for line in lines[:-1]} == {"missing", "not received"}
    assert named == names
    assert "incomplete" in lines[-1]
    assert files_below("out") == {"a.txt": b"hello"}


def test_an_incomplete_batch_makes_no_tar(cluster: Cluster) -> None:
    Path("out.tar").write_bytes(b"before")
    cluster.faults.add("short", entry=1)
    cluster.faults.add("reply", status=403, nth=2)
    assert cli.main(["get", "ais://b/a.txt", "ais://b/dir/empty", "--tar", "out.tar"]) == 1
    assert files_below(".") == {"out.tar": b"before"}


def test_get_into_a_link_that_leads_out(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    Path("elsewhere").mkdir()
    Path("out").mkdir()
    Path("out/dir").symlink_to(Path("elsewhere").resolve())
    assert cli.main(["get", "ais://b/dir/empty", "--out", "out"]) == 1
    assert "leads out of" in one_line(capsys)
    assert not list(Path("elsewhere").iterdir())


def test_get_replaces_a_link_and_not_what_it_names(cluster: Cluster) -> None:
    Path("precious").write_bytes(b"keep me")
    Path("out").mkdir()
    Path("out/a.txt").symlink_to(Path("precious").resolve())
    assert cli.main(["get", "ais://b/a.txt", "--out", "out"]) == 0
    assert Path("precious").read_bytes() == b"keep me"
    assert Path("out/a.txt").read_bytes() == b"hello"


def test_progress_on_a_terminal(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert cli.main(["get", "ais://b/a.txt", "ais://b/s.tar", "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("\r[")
    assert "#" * cli.BAR + "] 2/2 entries" in err
    assert err.endswith("\n")


@pytest.mark.parametrize(
    ("name", "archpath", "path"),
    [
        ("a/b", "", "a/b"),
        ("/etc/passwd", "", "etc/passwd"),
        ("s.tar", "/etc/passwd", "s.tar/etc/passwd"),
        ("a//./b", "", "a/b"),
        ("...", "", "..."),
    ],
)
def test_names_become_paths_below(name: str, archpath: str, path: str) -> None:
    assert download.relative_path(name, archpath) == path


@pytest.mark.parametrize(
    ("name", "archpath"),
    [("..", ""), ("a/../b", ""), ("s.tar", "../x"), ("s.tar", ".."), ("a\0b", ""), (".", ""), ("/", "")],
)
def test_names_that_lead_elsewhere(name: str, archpath: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        download.relative_path(name, archpath)


def test_a_write_that_fails_leaves_what_was_there() -> None:
    Path("out").mkdir()
    Path("out/a").write_bytes(b"before")
    with (
        pytest.raises(TypeError),
        download.folder(Path("out"), ["a"]) as write,
    ):
        write(0, "no bytes")  # type: ignore[arg-type]
    assert files_below("out") == {"a": b"before"}


# ---------------------------------------------------------------------------------------------------------- ls, put


def test_put_and_ls(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.bin").write_bytes(b"12345")
    Path("y z").write_bytes(b"")
    assert cli.main(["put", "x.bin", "y z", "ais://new/pre", "--create"]) == 0
    assert capsys.readouterr().out == "ais://new/pre/x.bin\nais://new/pre/y z\n"
    assert cli.main(["put", "x.bin", "ais://new"]) == 0
    assert capsys.readouterr().out == "ais://new/x.bin\n"
    assert cli.main(["ls", "ais://new/pre/"]) == 0
    assert capsys.readouterr().out == "           5  ais://new/pre/x.bin\n           0  ais://new/pre/y z\n"
    assert cli.main(["ls", "ais://new", "--names"]) == 0
    assert capsys.readouterr().out == "ais://new/pre/x.bin\nais://new/pre/y z\nais://new/x.bin\n"
    here = ["--endpoint", cluster.endpoint]
    for words in (["ls"], ["ls", "ais://"], [*here, "ls"], ["ls", *here]):
        assert cli.main(words) == 0
        assert capsys.readouterr().out == "ais://b\nais://new\n"


def test_names_are_shown_not_obeyed(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.put("c", "a\x1b[31m\nb", b"")
    assert cli.main(["ls", "ais://c", "--names"]) == 0
    assert capsys.readouterr().out == "ais://c/a\\x1b[31m\\nb\n"


def test_put_into_no_bucket(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").touch()
    assert cli.main(["put", "x", "ais://nowhere"]) == 1
    line = one_line(capsys)
    assert 'bucket "ais://nowhere" does not exist (status 404' in line
    assert line.endswith("make it with --create\n")


# ------------------------------------------------------------------------------------------------- errors and ends


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice"),
        (["get", "--out", "o"], "nothing to get"),
        (["get", "ais://b/x"], "one of the arguments --out --tar is required"),
        (["get", "ais://b/x", "--out", "o", "--tar", "t"], "not allowed with"),
        (["get", "b/x", "--out", "o"], "'b/x' does not look like ais://bucket/object"),
        (["get", "ais://b", "--out", "o"], "names no object"),
        (["get", "ais:///x", "--out", "o"], "names no bucket"),
        (["get", "foo://b/x", "--out", "o"], "Invalid bucket provider"),
        (["get", "ais://#ns/b/x", "--out", "o"], "namespaces"),
        (["get", "ais://b/../x", "--out", "o"], "'..' path component"),
        (["get", "ais://b/s.tar::../x", "--out", "o"], "'..' path component"),
        (["get", "ais://b/s.tar", "ais://b/s.tar::x", "--out", "o"], "a file and the directory of"),
        (["ls", "b"], "does not look like"),
        (["put", "nofile", "ais://b"], "no such file"),
        (["put", ".", "ais://b"], "a directory"),
        (["put", "d/x", "e/x", "ais://b"], "would both become ais://b/x"),
        (["ls", "--endpoint", "http://u:p@host"], "user name or password"),
        (["ls", "--endpoint", "ftp://host"], "not a URL"),
    ],
)
def test_a_wrong_command_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("d", "e"):
        Path(folder).mkdir()
        Path(folder, "x").touch()
    try:
        code = cli.main(words)
    except SystemExit as ending:
        code = ending.code  # type: ignore[assignment]
    assert code == 2
    assert says in one_line(capsys)
    assert not Path("o").exists()


@pytest.fixture
def nobody() -> str:
    """An endpoint where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_an_endpoint_that_is_not_there(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x").touch()
    for words in (["ls"], ["ls", "ais://b"], ["put", "x", "ais://b"], ["get", "ais://b/x", "--tar", "t"], ["demo"]):
        assert cli.main([*words, "--endpoint", nobody]) == 1
        err = capsys.readouterr().err
        assert f"cannot connect to {nobody}: connection refused; is the cluster running?" in err
        assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["x"]


def test_a_bucket_that_is_not_there(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ls", "ais://no"], ["get", "ais://no/x", "--tar", "t"]):
        assert cli.main(words) == 1
        assert 'bucket "ais://no" does not exist (status 404 from http://127.0.0.1:' in one_line(capsys)


def test_a_file_that_cannot_be_written(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").touch()
    assert cli.main(["get", "ais://b/a.txt", "--tar", "nodir/t"]) == 1
    assert "nodir/t: No such file or directory" in one_line(capsys)
    assert cli.main(["get", "ais://b/a.txt", "--out", "taken"]) == 1
    assert "taken: File exists" in one_line(capsys)
    assert cli.main(["get", "ais://b/a.txt", "--out", "out", "--from-file", "nolist"]) == 1
    assert "nolist: No such file or directory" in one_line(capsys)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_device_is_written_not_replaced(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").symlink_to("/dev/full")
    assert cli.main(["get", "ais://b/a.txt", "--tar", "full"]) == 1
    assert "/dev/full: No space left on device" in one_line(capsys)
    assert Path("full").is_symlink()


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_ls", interrupt)
    assert cli.main(["ls"]) == 130
    assert one_line(capsys) == "aisfast: interrupted\n"


def test_a_reader_that_leaves(cluster: Cluster) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "aisfast", "ls", "ais://b"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_warning_is_one_line(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIS_CONNECT_TIMEOUT", "soon")
    assert cli.main(["ls", "ais://b/a"]) == 0
    out, err = capsys.readouterr()
    assert out == "           5  ais://b/a.txt\n"
    assert err == "aisfast: AIS_CONNECT_TIMEOUT='soon' is not a number of 0 or more; 3.0 is used\n"


def test_explain() -> None:
    error = AISError(400, '{"message":"no\\nsuch thing","status":400}', "http://h/v1/b?x=1", remedy="ask another")
    assert messages.explain(error) == "no such thing (status 400 from http://h/v1/b); ask another"
    assert messages.explain(AISError(503, "", "http://h/")) == "an error without a text (status 503 from http://h/)"
    assert messages.explain(AISError(0, "cut off", remedy="again")) == "cut off; again"
    assert messages.explain(OSError(28, "No space left on device")) == "output: No space left on device"
    assert messages.explain(ValueError()) == "ValueError"


def test_version() -> None:
    done = subprocess.run([sys.executable, "-m", "aisfast", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"aisfast {__version__}\n", "")


# ---------------------------------------------------------------------------------------------------------- doctor


def states(out: str) -> dict[str, str]:
    """Of each step, whether it was ok."""
    lines = [line.split(None, 2) for line in out.splitlines() if not line.startswith((" ", "-"))]
    return {step: state for state, step, *_ in lines}


WELL = ["versions", "endpoint", "settings", "connection", "TLS", "gateway", "auth", "redirect", "GetBatch"]


def test_doctor_finds_nothing(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert states(out) == dict.fromkeys(WELL, "ok")
    assert f"{cluster.endpoint} (AIS_ENDPOINT)" in out
    assert "3 of 3 target(s) can be reached" in out
    assert "the first byte of ais://b/a.txt came after 1 redirect(s)" in out
    assert err == ""


def test_doctor_without_an_object(ais_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    ais_cluster.put("b", "empty", b"")
    assert cli.main(["doctor", "--endpoint", ais_cluster.endpoint]) == 0
    assert "not tried: no object was found" in capsys.readouterr().out


def test_doctor_where_nobody_listens(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--endpoint", nobody]) == 1
    out = capsys.readouterr().out
    assert states(out)["connection"] == "FAIL"
    assert "connection refused\n" in out
    assert "-> is the cluster running?" in out
    assert "gateway" not in out.partition("not checked")[2]


def test_doctor_with_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--endpoint", "ftp://x"]) == 1
    assert states(capsys.readouterr().out)["settings"] == "FAIL"


def test_doctor_without_the_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Cluster(tail_delay=0, token="eyJ.secret") as cluster:
        cluster.put("b", "x", b"x")
        assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 1
        out = capsys.readouterr().out
        assert states(out)["auth"] == "FAIL"
        assert "-> check the token" in out
        monkeypatch.setenv("AIS_AUTHN_TOKEN", "eyJ.secret")
        assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 0
        out = capsys.readouterr().out
        assert "listed with the token" in out
        assert "secret" not in out


def test_doctor_and_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("127.0.0.1")
    crt, key, ca = (str(tmp_path / name) for name in ("crt", "key", "ca"))
    mine.cert_chain_pems[0].write_to_path(crt)
    mine.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    with Cluster(tail_delay=0, tls=(crt, key)) as cluster:
        cluster.put("b", "x", b"x")
        assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 1
        out = capsys.readouterr().out
        assert states(out)["TLS"] == "FAIL"
        assert "AIS_CLIENT_CA" in out
        with monkeypatch.context() as lax:
            lax.setenv("AIS_SKIP_VERIFY_CRT", "1")
            assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 0
            assert states(capsys.readouterr().out)["TLS"] == "warn"
        monkeypatch.setenv("AIS_CLIENT_CA", ca)
        assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 0
        out = capsys.readouterr().out
        assert states(out) == dict.fromkeys(WELL, "ok")
        assert "certificate verified" in out
        assert cli.main(["doctor", "--endpoint", cluster.endpoint.replace("https", "http")]) == 1
        assert states(capsys.readouterr().out)["gateway"] == "FAIL"
        monkeypatch.setenv("AIS_CLIENT_CA", str(tmp_path / "nofile"))
        assert cli.main(["doctor", "--endpoint", cluster.endpoint]) == 1
        assert states(capsys.readouterr().out)["TLS"] == "FAIL"


def test_doctor_with_a_target_out_of_reach(cluster: Cluster, nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.smap.targets[1].port = int(nobody.rpartition(":")[2])
    assert cli.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "2 of 3 target(s) can be reached" in out
    assert f"cannot connect to {nobody}: connection refused" in out


def test_doctor_at_a_target(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--endpoint", cluster.smap.targets[0].url]) == 1
    out = capsys.readouterr().out
    assert "is a target" in out
    assert f"-> set the endpoint to a gateway: {cluster.endpoint}" in out
