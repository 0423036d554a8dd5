"""What a program of the official SDK touches besides batches: retry configs, sources, URLs, what headers say."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import urllib3

import aisfast
from aisfast import session as session_module
from aisfast.sdk import AISSource, Bucket, Client, ColdGetConf, RetryConfig
from aisfast.sdk.errors import InvalidBckProvider, InvalidURLException
from aisfast.sdk.obj.object_attributes import ChunksInfo, ECInfo, ObjectAttributes
from aisfast.sdk.utils import parse_url
from scripted import Scripted, answer


def network(attempts: int) -> SimpleNamespace:
    """What is looked at of a `tenacity.Retrying`; it does not pickle, as the real one."""
    return SimpleNamespace(stop=SimpleNamespace(max_attempt_number=attempts), retry=lambda _: True)


OFF = RetryConfig(urllib3.Retry(total=0), network(1))


@pytest.mark.parametrize(
    ("config", "times"),
    [
        (None, 3),
        (OFF, 1),
        (RetryConfig(urllib3.Retry(total=False), network(1)), 1),
        (RetryConfig(urllib3.Retry(total=4), network(1)), 3),
        (RetryConfig(urllib3.Retry(total=0), network(7)), 3),
        (RetryConfig(urllib3.Retry(total=0), None), 3),
        (RetryConfig.default(), 3),
    ],
)
def test_a_config_says_whether_anything_is_tried_again(
    config: RetryConfig | None, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "BACKOFF", 0)
    with Scripted(lambda _: answer(503, b"busy")) as server, Client(server.url, retry_config=config) as client:
        for one in (client, pickle.loads(pickle.dumps(client))):
            server.requests.clear()
            with pytest.raises(aisfast.AISError):
                one.bucket("b").list_objects()
            assert len(server.requests) == times
            assert one.policy.resume is (times > 1)
            one.close()


def test_a_policy_is_the_word_of_its_client() -> None:
    policy = aisfast.Policy(patience=3)
    assert Client("http://h", retry_config=OFF, policy=policy).policy == policy


def test_retry_config() -> None:
    config = RetryConfig(urllib3.Retry(total=2), network(2), ColdGetConf(max_cold_wait=9))
    client = Client("http://h", retry_config=config)
    assert client.retry_config is config
    again = pickle.loads(pickle.dumps(client)).retry_config
    assert (again.http_retry.total, again.network_retry, again.cold_get_conf) == (2, None, ColdGetConf(max_cold_wait=9))
    default = Client("http://h").retry_config
    assert (default.http_retry.total, default.network_retry, default.cold_get_conf) == (5, None, ColdGetConf())
    with pytest.raises(ValueError, match="retry_config=3 must be a RetryConfig"):
        Client("http://h", retry_config=3)


def test_retry_config_of_the_official_sdk() -> None:
    official = pytest.importorskip("aistore.sdk.retry_config", reason="the official SDK is not installed")
    tenacity = pytest.importorskip("tenacity")
    once = tenacity.Retrying(stop=tenacity.stop_after_attempt(1))
    assert not Client("http://h", retry_config=official.RetryConfig(urllib3.Retry(total=0), once)).policy.resume
    assert Client("http://h", retry_config=official.RetryConfig.default()).policy.resume
    ours, theirs = RetryConfig.default().http_retry, official.RetryConfig.default().http_retry
    assert {**vars(ours), "status_forcelist": set(ours.status_forcelist)} == {
        **vars(theirs),
        "status_forcelist": set(theirs.status_forcelist),
    }
    assert vars(ColdGetConf()) == vars(official.ColdGetConf())


def test_a_bucket_is_a_source() -> None:
    client = Client("http://h")
    bucket = client.bucket("b")
    assert isinstance(bucket, AISSource)
    with pytest.raises(TypeError, match="abstract"):
        AISSource()  # type: ignore[abstract]
    other = Client("http://other")
    bucket.client = other
    assert bucket.client is other
    assert bucket.object("o").get_url().startswith("http://other")
    client.bucket("b", "aws").verify_cloud_bucket()
    with pytest.raises(InvalidBckProvider):
        bucket.verify_cloud_bucket()
    assert isinstance(bucket, Bucket)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ais://b/dir/o.txt", ("ais", "b", "dir/o.txt")),
        ("s3://b/a?b#c %", ("s3", "b", "a?b#c %")),
        ("ais://b", ("ais", "b", "")),
        ("ais://", ("ais", "", "")),
        ("dir/o.txt", ("", "", "dir/o.txt")),
        ("", ("", "", "")),
    ],
)
def test_parse_url(url: str, parts: tuple[str, str, str]) -> None:
    assert parse_url(url) == parts
    client = Client("http://h")
    if all(parts):
        assert client.get_object_from_url(url).name == parts[2]
    else:
        with pytest.raises(InvalidURLException):
            client.get_object_from_url(url)


def test_what_headers_say_of_slices_and_chunks() -> None:
    nothing = ObjectAttributes({})
    assert (nothing.ec, nothing.chunks) == (None, None)
    headers = {"Ais-Ec-Generation": "5", "Ais-Ec-Data": "2", "Ais-Ec-Parity": "1", "Ais-Ec-Replicated": "false"}
    coded = ObjectAttributes({**headers, "Ais-Chunks-Count": "3", "Ais-Chunks-Max-Chunk-Size": "1024"})
    assert coded.ec == ECInfo(5, 2, 1, False)
    assert coded.chunks == ChunksInfo(3, 1024)
    assert ObjectAttributes({"ais-ec-replicated": "true"}).ec == ECInfo(is_ec_copy=True)
    assert ObjectAttributes({"ais-chunks-count": "2"}).chunks == ChunksInfo(2)


@pytest.mark.parametrize("module", ["errors", "const", "types", "batch.types", "retry_config", "obj.object"])
def test_a_name_that_a_module_lacks(module: str) -> None:
    its = pytest.importorskip(f"aisfast.sdk.{module}")
    assert not hasattr(its, "Nothing")
    told = rf"aistore\.sdk\.{module}\.Nothing is not part of aisfast.*aisfast\.accelerate\(\)"
    with pytest.raises(AttributeError, match=told):
        _ = its.Nothing
    for statement in (f"from aisfast.sdk.{module} import Nothing", f"import aisfast.sdk.{module}.Nothing"):
        with pytest.raises(ImportError, match=told):
            exec(statement)
    with pytest.raises(AttributeError, match="has no attribute '_nothing'"):
        _ = its._nothing
    exec(f"from aisfast.sdk.{module} import *", {})


def test_importing_loads_neither_urllib3_nor_the_official_sdk() -> None:
    code = (
        "import sys; from aisfast.sdk import RetryConfig, AISSource, errors, const, types, utils; "
        "print([name for name in ('urllib3', 'aistore', 'tenacity', 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_modules_are_attributes_without_an_import_of_their_own() -> None:
    parts = ("batch.types.MossOut", "obj.object.Object", "get_batch.batch_loader")
    code = f"import aisfast.sdk as sdk; print({', '.join(f'sdk.{part}' for part in parts)})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "MossOut" in done.stdout
    assert not hasattr(aisfast.sdk.batch, "extractor")
