"""The models, enums and official names: what they accept, and what they turn into."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import aisfast.sdk
import aisfast.sdk.types
from aisfast.enums import ArchiveMode, Colocation, ListObjectFlag, Provider
from aisfast.errors import InvalidBckProvider
from aisfast.legacy import BatchObjectRequest, BatchRequest, BatchResponse, BatchResponseItem
from aisfast.models import (
    ArchiveConfig,
    BucketEntry,
    BucketList,
    BucketModel,
    MossIn,
    MossReq,
    MossResp,
    Namespace,
    Smap,
)

FULL = {
    "obj_name": "o",
    "bck": "b",
    "provider": "aws",
    "uname": "ais/@#/b/",
    "opaque": "YQ==",
    "archpath": "a/b",
    "start": 3,
    "length": -1,
}
WIRE = {"objname": "o", "bucket": "b", **{k: v for k, v in FULL.items() if k not in ("obj_name", "bck")}}

# -------------------------------------------------------------------------------------------- MossIn


def test_moss_in_takes_either_name() -> None:
    entry = MossIn(**FULL)
    assert entry == MossIn(**WIRE) == MossIn.model_validate(WIRE) == MossIn.model_validate(entry)
    assert entry.model_dump() == FULL
    assert entry.model_dump(by_alias=True) == WIRE
    assert entry.dict() == WIRE
    assert list(entry.dict()) == [
        "objname",
        "bucket",
        "provider",
        "uname",
        "opaque",
        "archpath",
        "start",
        "length",
    ]
    assert hash(entry) == hash(MossIn(**FULL))
    assert MossIn(obj_name="o", unknown=1).dict() == {"objname": "o"}
    assert MossIn(obj_name="o", opaque=b"YQ==").opaque == "YQ=="
    assert MossIn(obj_name="o").model_dump(exclude_none=True) == {"obj_name": "o"}


def test_moss_in_is_frozen_and_copies() -> None:
    entry = MossIn(**FULL)
    for kind in (AttributeError, ValueError):  # of a frozen dataclass, and of a frozen pydantic model
        with pytest.raises(kind, match="frozen"):
            entry.start = 4
        with pytest.raises(kind, match="frozen"):
            del entry.start
    assert entry.model_copy(update={"start": 4}).start == 4
    for other in (pickle.loads(pickle.dumps(entry)), copy.copy(entry), copy.deepcopy(entry)):
        assert other == entry
    assert repr(MossIn(obj_name="o")).startswith("MossIn(obj_name='o', bck=None, provider=None, ")
    assert entry != MossIn(obj_name="o")


@pytest.mark.parametrize("given", [{}, {"obj_name": 3}, {"objname": None}])
def test_moss_in_wants_a_name(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="obj_name"):
        MossIn(**given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a mapping"):
        MossIn.model_validate("o")  # type: ignore[arg-type]


def test_moss_req() -> None:
    request = MossReq(**{"in": [WIRE], "mime": ".tar", "coer": True, "onob": False, "strm": True, "coloc": 0})
    assert request.moss_in == [MossIn(**FULL)]
    assert request.add(MossIn(obj_name="p")).extend([MossIn(obj_name="q")]) is request
    assert request.dict() == {
        "in": [WIRE, {"objname": "p"}, {"objname": "q"}],
        "mime": ".tar",
        "coer": True,
        "onob": False,
        "strm": True,
        "coloc": 0,
    }
    assert MossReq().dict() == {}
    assert MossReq().moss_in is not MossReq().moss_in
    assert pickle.loads(pickle.dumps(request)) == request == MossReq.model_validate(request.dict())
    assert MossReq(output_format=".zip").model_dump()["output_format"] == ".zip"


def test_moss_resp() -> None:
    answer = MossResp(
        out=[{"objname": "o", "bucket": "b", "provider": "", "size": 2, "opaque": "YQ=="}],
        uuid="gbt-1",
        more=1,
    )
    assert (answer.out[0].obj_name, answer.out[0].opaque, answer.out[0].size) == ("o", b"a", 2)
    assert MossResp.model_validate({"out": None, "uuid": "u"}).out == []
    assert pickle.loads(pickle.dumps(answer)) == answer


# ---------------------------------------------------------------------- held against the official ones

NAMED = {"objname": "o", "bucket": "b", "provider": "ais"}
NODE = {"daemon_id": "t1", "daemon_type": "target"}
GIVEN: list[tuple[str, dict[str, Any]]] = [
    ("MossIn", FULL),
    ("MossIn", WIRE),
    ("MossIn", {"obj_name": "o"}),
    ("MossIn", {"obj_name": "name", "objname": "wire"}),
    ("MossIn", {"objname": "o", "start": 0, "bucket": "", "unknown": 1}),
    ("MossIn", {"objname": b"o", "opaque": bytearray(b"YQ=="), "start": "5", "length": 5.0}),
    ("MossIn", {"objname": "\u00e9\n", "start": True}),
    ("MossIn", {}),
    ("MossIn", {"objname": 3}),
    ("MossIn", {"objname": None}),
    ("MossIn", {"objname": b"\xff"}),
    ("MossIn", {"objname": "o", "bucket": 5}),
    ("MossIn", {"objname": "o", "start": "x"}),
    ("MossIn", {"objname": "o", "start": 1.5}),
    ("MossIn", {"objname": "o", "start": [1]}),
    ("MossReq", {}),
    ("MossReq", {"in": [WIRE, {"objname": "p"}]}),
    ("MossReq", {"moss_in": ({"obj_name": "o"},), "mime": ".tgz", "coer": "yes", "onob": 0.0, "strm": 1, "coloc": "1"}),
    ("MossReq", {"moss_in": [], "cont_on_err": False, "colocation": 1}),
    ("MossReq", {"moss_in": None}),
    ("MossReq", {"in": "x"}),
    ("MossReq", {"in": [3]}),
    ("MossReq", {"in": [{}]}),
    ("MossReq", {"coer": 2}),
    ("MossReq", {"coer": "maybe"}),
    ("MossReq", {"mime": 3}),
    ("MossOut", NAMED),
    ("MossOut", {**NAMED, "obj_name": "p", "archpath": "x", "opaque": "_-8=", "size": "3", "err_msg": None}),
    *(("MossOut", {**NAMED, "opaque": opaque}) for opaque in ("YQ==", "+/8=", "YQ", "!", "", 5, b"\xff", None)),
    ("MossOut", {"objname": "o", "bucket": "b"}),
    ("MossOut", {**NAMED, "provider": None}),
    ("MossOut", {**NAMED, "size": None}),
    ("MossResp", {}),
    ("MossResp", {"out": [NAMED, {**NAMED, "opaque": "YQ=="}], "uuid": "u"}),
    ("MossResp", {"out": [1]}),
    ("MossResp", {"uuid": None}),
    ("Namespace", {}),
    ("Namespace", {"uuid": "u", "name": "n"}),
    ("Namespace", {"name": 3}),
    ("BucketModel", {"name": "b", "provider": "ais", "namespace": {"name": "n"}}),
    ("BucketModel", {"name": "b", "provider": "aws", "namespace": None}),
    ("BucketModel", {"name": "b"}),
    ("BucketModel", {"name": "b", "provider": "ais", "namespace": 3}),
    ("Snode", {**NODE, "public_net": {"direct_url": "http://h"}, "flags": "4"}),
    ("Snode", {"daemon_id": "t1"}),
    ("Smap", {"tmap": {"t1": NODE}, "pmap": {}, "proxy_si": NODE, "version": "3"}),
    ("Smap", {"tmap": [], "pmap": {}, "proxy_si": NODE}),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"by_alias": True},
    {"exclude_none": True},
    {"exclude_defaults": True},
    {"exclude_unset": True},
    {"by_alias": True, "exclude_unset": True, "exclude_none": True},
    {"include": {"obj_name", "uuid", "name"}},
    {"include": set()},
    {"exclude": {"obj_name", "moss_in", "name"}},
    {"exclude": {"obj_name": False, "out": True}},
    {"include": {"moss_in": {0: {"obj_name"}}, "out": {"__all__": {"size": True}}}},
    {"exclude": {"moss_in": {0: True}, "out": {1: ...}, "namespace": {"uuid"}, "tmap": {"t1": {"flags"}}}},
]

JSON: list[tuple[str, dict[str, Any]]] = [
    ("model_dump", {"mode": "json"}),
    ("model_dump_json", {}),
    ("model_dump_json", {"indent": 2}),
]


def official_model(name: str) -> Any:
    """The installed SDK's model of that name."""
    for home in ("aistore.sdk.batch.types", "aistore.sdk.types"):
        module = pytest.importorskip(home, reason="the official SDK is not installed, or has other models")
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(name)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or that it refuses."""
    try:
        return call()
    except ValueError:
        return ValueError


@pytest.mark.parametrize(("name", "given"), GIVEN)
def test_models_are_as_the_official_ones(name: str, given: dict[str, Any]) -> None:
    ours, theirs = getattr(aisfast.sdk.types, name, None) or getattr(aisfast.sdk, name), official_model(name)
    mine, want = outcome(lambda: ours(**given)), outcome(lambda: theirs(**given))
    if want is ValueError:
        assert mine is ValueError
        assert outcome(lambda: ours.model_validate(given)) is ValueError
        return
    assert (repr(mine), str(mine), dict(mine)) == (repr(want), str(want), dict(ours.model_validate(given)))
    for options in OPTIONS:
        assert list(mine.model_dump(**options).items()) == list(want.model_dump(**options).items()), options
        for method, more in JSON:
            dumps = [outcome(partial(getattr(model, method), **options, **more)) for model in (mine, want)]
            assert dumps[0] == dumps[1], (method, options)
    if "dict" in vars(theirs):
        assert mine.dict() == want.dict()
    text = outcome(lambda: want.model_dump_json(by_alias=True))
    if text is not ValueError:
        again, want = ours.model_validate_json(text), theirs.model_validate_json(text)
        assert repr(again) == repr(want)
    assert outcome(lambda: isinstance(hash(mine), int)) if name == "MossIn" else ours.__hash__ is None
    for copied in (pickle.loads(pickle.dumps(mine)), copy.copy(mine), copy.deepcopy(mine), mine.model_copy()):
        assert (copied, repr(copied)) == (mine, repr(mine))
        assert copied.model_dump(exclude_unset=True) == mine.model_dump(exclude_unset=True)
    assert mine.model_copy(deep=True) == mine != object()
    assert ours.model_validate(mine) is mine


@pytest.mark.parametrize("name", ["MossIn", "MossReq", "MossOut", "MossResp", "Namespace"])
@pytest.mark.parametrize("text", ["x", "{", '{"a":', "[]", "null", "3", b"\xff", "[" * 100_000])
def test_what_is_no_model(name: str, text: str | bytes) -> None:
    model = getattr(aisfast.sdk, name)
    with pytest.raises(ValueError, match=f"{name}: (not JSON|expected a mapping)"):
        model.model_validate_json(text)
    with pytest.raises(ValueError, match=f"{name}: expected a mapping"):
        model.model_validate(text)


def test_where_the_official_models_are_not_followed() -> None:
    assert MossResp(out=None).out == []  # a server that has nothing to say may say null; there a ValidationError
    with pytest.raises(ValueError, match="MossOut: size is larger"):
        aisfast.sdk.MossOut(**NAMED, size=2**64)
    with pytest.raises(ValueError, match="MossIn: there is no field 'x'"):
        MossIn(obj_name="o").model_copy(update={"x": 1})
    with pytest.raises(TypeError, match="each once"):
        MossIn("o", obj_name="o")


def test_copies_share_lists_unless_deep() -> None:
    request = MossReq(moss_in=[MossIn(obj_name="o")])
    assert request.model_copy().moss_in is request.moss_in is copy.copy(request).moss_in
    assert request.model_copy(deep=True).moss_in is not request.moss_in
    copied = request.model_copy(update={"cont_on_err": True})
    assert copied.model_dump(exclude_unset=True, exclude={"moss_in"}) == {"cont_on_err": True}
    assert request.cont_on_err is None


def test_a_batch_hands_out_a_request() -> None:
    batch = aisfast.Client("http://h").batch(["a", "b"], aisfast.Client("http://h").bucket("x"))
    options = {"output_format": ".tar", "cont_on_err": True, "only_obj_name": False, "streaming_get": True}
    same = MossReq(moss_in=batch.requests_list, **options)
    assert batch.request == same == pickle.loads(pickle.dumps(batch.request)) == batch.request.model_copy()
    assert repr(batch.request) == repr(same)
    assert batch.request.dict() == same.dict()


# ------------------------------------------------------------------------------------- other models


def test_listing_from_json() -> None:
    page = BucketList.from_wire(
        {
            "uuid": "u",
            "continuation_token": "t",
            "entries": [
                {"name": "n", "size": "12", "flags": 64, "copies": 1, "checksum": "c"},
                {"name": "m"},
            ],
            "flags": 0,
        }
    )
    first, second = page.entries
    assert (first.name, first.size, first.copies, first.checksum) == ("n", 12, 1, "c")
    assert first.is_cached()
    assert first.is_ok()
    assert not second.is_cached()
    assert not BucketEntry("x", f=3).is_ok()
    assert BucketEntry("x") == BucketEntry(n="x", cs="", a="", v="", t="", s=0, c=0, f=0)
    assert (first.n, first.s, first.c, first.cs, first.f) == ("n", 12, 1, "c", 64)
    assert BucketList("u", "t", 0).entries == []
    assert (page.uuid, page.continuation_token, page.flags) == (page.UUID, page.ContinuationToken, page.Flags)
    props = first.generate_object_props()
    assert (props.name, props.size, props.checksum_value, props.mirror_copies) == ("n", 12, "c", 1)
    assert BucketList.from_wire({"entries": None}).entries == []
    assert pickle.loads(pickle.dumps(page)) == page


def test_bucket_model_and_namespace() -> None:
    model = BucketModel.from_wire({"name": "b", "provider": "ais", "namespace": {"uuid": "", "name": "ns"}})
    assert model.get_path() == "ais/@#ns/b/"
    assert model.as_dict() == {"name": "b", "provider": "ais", "namespace": {"uuid": "", "name": "ns"}}
    assert BucketModel("b", "aws").get_path() == "aws/@#/b/"
    assert BucketModel("b", "aws").as_dict() == {"name": "b", "provider": "aws"}
    assert Namespace("u", "n").get_path() == "@u#n"


def test_smap_from_json() -> None:
    net = {"node_ip_addr": "10.0.0.1", "daemon_port": "8080", "direct_url": "http://10.0.0.1:8080"}
    node = {"daemon_id": "t1", "daemon_type": "target", "public_net": net, "flags": 4, "id_digest": 2**63 + 1}
    smap = Smap.from_wire({"tmap": {"t1": node}, "pmap": {}, "proxy_si": node, "version": "12", "uuid": "u"})
    assert (smap.version, smap.uuid, smap.tmap["t1"].daemon_id) == (12, "u", "t1")
    assert smap.tmap["t1"].public_net.direct_url == "http://10.0.0.1:8080"  # type: ignore[union-attr]
    assert smap.tmap["t1"].in_maint_or_decomm()
    assert smap.tmap["t1"].id_digest == 2**63 + 1
    assert pickle.loads(pickle.dumps(smap)) == smap
    with pytest.raises(NotImplementedError, match=r"aisfast\.accelerate"):
        smap.get_target_for_object("x")


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "x"},
        {"mode": ArchiveMode.PREFIX},
        {"archpath": "a", "regex": "x", "mode": ArchiveMode.PREFIX},
    ],
)
def test_archive_config(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="ArchiveConfig"):
        ArchiveConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("ais", Provider.AIS),
        ("s3", Provider.AMAZON),
        ("aws", Provider.AMAZON),
        ("gs", Provider.GOOGLE),
        ("az", Provider.AZURE),
        ("oc", Provider.OCI),
        (Provider.OCI, Provider.OCI),
    ],
)
def test_providers(name: Provider | str, provider: Provider) -> None:
    assert Provider.parse(name) is provider
    assert provider.is_remote() is (provider is not Provider.AIS)


@pytest.mark.parametrize("name", ["", "nfs", "AIS", None, []])
def test_no_providers(name: object) -> None:
    with pytest.raises(InvalidBckProvider):
        Provider.parse(name)  # type: ignore[arg-type]


def test_enums() -> None:
    assert [int(level) for level in Colocation] == [0, 1, 2]
    assert (
        ListObjectFlag.join_flags([ListObjectFlag.ARCH_DIR, ListObjectFlag.NO_DIRS, ListObjectFlag.ARCH_DIR])
        == 0x2008
    )
    assert ListObjectFlag.join_flags([]) == 0


# ------------------------------------------------------------------------------------------- legacy


def test_legacy_models_have_the_methods_of_then() -> None:
    request = BatchObjectRequest(objname="o", bucket="b", start=0)
    assert request == BatchObjectRequest.parse_raw(request.json()) == BatchObjectRequest.parse_obj(request.dict())
    assert request.copy(update={"start": 4}).dict() == {"objname": "o", "bucket": "b", "start": 4}
    assert request.json(include={"obj_name", "start"}) == '{"obj_name": "o", "start": 0}'
    for given in ({}, {"objname": 3}, {"objname": "o", "start": "x"}):
        with pytest.raises(ValueError, match="BatchObjectRequest"):
            BatchObjectRequest(**given)


def test_legacy_request_as_json() -> None:
    request = BatchRequest(streaming=False)
    assert request.is_empty()
    with pytest.raises(ValueError, match="empty"):
        request.get_request_bck_name_prov()
    request.obj_requests.append(
        BatchObjectRequest("o", "b", "aws", archpath="x", start=0, length=5, opaque="YQ==")
    )
    assert request.to_dict() == {
        "in": [
            {
                "objname": "o",
                "bucket": "b",
                "provider": "aws",
                "opaque": "YQ==",
                "archpath": "x",
                "start": 0,
                "length": 5,
            }
        ],
        "mime": ".tar",
        "coer": True,
        "onob": False,
        "strm": False,
    }
    again = BatchRequest.from_json(request.to_json())
    assert again.to_dict() == request.to_dict()
    assert again.get_request_bck_name_prov() == ("b", "aws")


def test_legacy_response() -> None:
    text = '{"out":[{"objname":"o","bucket":"b","provider":"ais","size":3,"opaque":"_-8="}],"uuid":"u"}'
    answer = BatchResponse.from_json(text)
    assert answer.responses == [BatchResponseItem("o", "b", "ais", opaque=b"\xff\xef", size=3)]
    request = BatchRequest()
    request.obj_requests.append(BatchObjectRequest("o", "b", opaque="not base64!"))
    item = BatchResponseItem.from_request_or_response(0, request, answer)
    assert item == BatchResponseItem("o", "b", opaque=None)
    assert item.is_file_missing("__404__/b/o")
    assert not item.is_file_missing("__404__/o")
    request.streaming = False
    assert BatchResponseItem.from_request_or_response(0, request, answer) is answer.responses[0]


def loaded(entries: list[object], **options: bool) -> list[tuple[BatchResponseItem, bytes]]:
    request = BatchRequest(**options)
    request.obj_requests.extend(entries)  # type: ignore[arg-type]
    return list(aisfast.Client("http://127.0.0.1:1").batch_loader().get_batch(request))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (BatchObjectRequest("../o", "b"), r"name '\.\./o'"),
        (BatchObjectRequest("o", "b", archpath="a/.."), r"archpath 'a/\.\.'"),
        (BatchObjectRequest("o", "b", start=-1, length=2), "start=-1 must be >= 0"),
        (BatchObjectRequest("o", "b", start=5), "start=5 requires length"),
        (BatchObjectRequest("o", "b", opaque="no base64"), r"obj_requests\[0\].* is not an entry"),
        (BatchObjectRequest("o", "b", "nfs"), r"obj_requests\[0\].*Invalid bucket provider: 'nfs'"),
        (BatchObjectRequest("o", "b", uname="ais/b"), r"uname='ais/b' must look like"),
        (BatchObjectRequest("o"), r"obj_requests\[0\].*must name its bucket"),
        ("o", r"obj_requests\[0\] \('o'\) is not an entry.*append BatchObjectRequest"),
        (BatchObjectRequest("o", uname="ais/@#ns/b/"), None),
        (MossIn(obj_name="o", bck="b"), None),
    ],
)
def test_legacy_entries_are_checked_as_those_of_a_batch(entry: object, why: str | None) -> None:
    with pytest.raises(ValueError if why else aisfast.AISConnectionError, match=why):
        loaded([entry])


def test_legacy_arguments_that_are_none() -> None:
    client = aisfast.Client("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="batch_request='x' must be a BatchRequest"):
        client.batch_loader().get_batch("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be empty"):
        client.batch_loader().get_batch(None)  # type: ignore[arg-type]
    request = BatchRequest()
    with pytest.raises(ValueError, match="opaque='x' must be bytes"):
        request.add_object_request(client.bucket("b").object("o"), opaque="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="obj='o' must be an Object"):
        request.add_object_request("o")  # type: ignore[arg-type]
    assert request.is_empty()


def test_a_legacy_entry_keeps_its_namespace() -> None:
    client = aisfast.Client("http://127.0.0.1:1")
    named = client.bucket("b", namespace=Namespace(name="ns"))
    request = BatchRequest()
    request.add_object_request(client.bucket("b").object("o"))
    request.add_object_request(named.object("o"))
    plain = {"objname": "o", "bucket": "b", "provider": "ais"}
    assert request.to_dict()["in"] == [plain, {**plain, "uname": "ais/@#ns/b/"}]
    for asked in (request, BatchRequest.from_json(request.to_json())):
        with pytest.raises(ValueError, match="lives in namespace @#ns"):
            client.batch_loader().get_batch(asked)


# ----------------------------------------------------------------------------------- official paths


def test_official_paths_hold_the_same_classes() -> None:
    for module in pkgutil.walk_packages(aisfast.sdk.__path__, "aisfast.sdk."):
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            assert getattr(loaded, name) is not None
    for name in aisfast.sdk.__all__:
        assert getattr(aisfast.sdk, name).__name__ == name
    from aisfast.sdk.batch.batch import Batch
    from aisfast.sdk.batch.types import MossOut
    from aisfast.sdk.get_batch.batch_request import BatchRequest as Legacy
    from aisfast.sdk.obj.object import Object

    assert (aisfast.sdk.Batch, aisfast.Batch) == (Batch, Batch)
    assert aisfast.sdk.MossOut is MossOut
    assert aisfast.sdk.BatchRequest is Legacy is BatchRequest
    assert aisfast.Object is Object
    assert set(aisfast.sdk.__all__) <= set(dir(aisfast.sdk))


def test_what_is_not_here_says_so() -> None:
    client = aisfast.Client("http://h")
    bucket = client.bucket("b")
    for call in (
        client.job,
        client.etl,
        client.dsort,
        bucket.copy,
        bucket.objects,
        bucket.object("o").copy,
        lambda: bucket.object("o").get_reader(num_workers=2),
        lambda: bucket.object("o").get_reader(etl="x"),
        lambda: bucket.object("o").get_reader(direct=True),
    ):
        with pytest.raises(NotImplementedError, match=r"not part of aisfast.*aisfast\.accelerate"):
            call()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("from aisfast.sdk import Etl", "Etl"),
        ("from aisfast.sdk import ETLConfig", "ETLConfig"),
        ("from aisfast.sdk import authn", "authn"),
        ("from aisfast.sdk.authn import AuthNClient", "authn"),
        ("from aisfast.sdk.etl.etl_config import ETLConfig", "etl"),
        ("import aisfast.sdk.dsort", "dsort"),
        ("import aisfast.sdk.job", "job"),
        ("from aisfast.sdk.obj.multipart_upload import MultipartUpload", "obj.multipart_upload"),
        ("from aisfast.sdk.batch.extractor import x", "batch.extractor"),
    ],
)
def test_an_import_of_what_is_not_here_says_so(statement: str, what: str) -> None:
    told = rf"aistore\.sdk\.{what} is not part of aisfast.*aisfast\.accelerate"
    with pytest.raises(ImportError, match=told):
        exec(statement)


@pytest.mark.parametrize("name", ["DSort", "Etl", "authn", "nothing"])
def test_an_attribute_that_is_not_here_says_so(name: str) -> None:
    assert not hasattr(aisfast.sdk, name)
    told = rf"aistore\.sdk\.{name} is not part of aisfast.*aisfast\.accelerate"
    with pytest.raises(AttributeError, match=told):
        getattr(aisfast.sdk, name)


def test_nothing_is_said_of_private_names_and_other_packages() -> None:
    with pytest.raises(AttributeError, match=r"'aisfast\.sdk' has no attribute '_x'"):
        _ = aisfast.sdk._x
    for module in ("aisfast.sdk._x", "aisfast.sdkx", "aisfast.nothing"):
        with pytest.raises(ModuleNotFoundError, match="No module named"):
            importlib.import_module(module)


def test_official_modules_are_attributes() -> None:
    code = "import aisfast.sdk as s; print(s.errors.AISError.__name__, s.batch.__name__, s.bucket.Bucket.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AISError", "aisfast.sdk.batch", "Bucket"]
