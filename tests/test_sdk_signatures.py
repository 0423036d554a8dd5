"""`aisfast.sdk` held against the official SDK that is installed: modules, names, signatures, fields, values.

Ours may add names, and to a signature `policy=`; `endpoint` may have a default. Every other difference stands in a
table here, with its reason; one that is no difference any more fails too. So a new official release shows what changed.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aisfast.sdk
from aisfast.legacy import BatchLoader, BatchRequest, BatchResponse, BatchResponseItem
from aisfast.models import REQUIRED

official = pytest.importorskip("aistore.sdk", reason="the official SDK is not installed")
if int(importlib.import_module("aistore.version").__version__.partition(".")[0]) < 2:
    pytest.skip("the official SDK that is installed is older than 2.0", allow_module_level=True)

RAISED = "a DataLoader raises an error again from its text alone; ours tell the remedy too"
OWN = "only ours make one, from what they have"
DIFFERENT = {
    "batch.batch:BatchResult": "an iterator, whose class is no promise",
    "errors:APIRequestError()": RAISED,
    "errors:NoTargetError()": RAISED,
    "errors:Timeout()": RAISED,
    "obj.object_reader:ObjectReader()": OWN,
    "obj.object_writer:ObjectWriter()": OWN,
    "provider:provider_aliases": "az and oc too: the server knows them",
    "retry_config:NETWORK_RETRY_EXCEPTIONS": "ours: no exception of urllib3 or requests comes out of a call",
}

JOBS = "starts jobs, or asks about them"
STORES = "manages what is stored; GetBatch reads it"
ETL = "runs programs in the cluster"
PRIVATE = "how the official SDK works inside"
UNSUPPORTED = {  # methods that raise NotImplementedError
    "bucket:Bucket.copy": JOBS,
    "bucket:Bucket.create_inventory": STORES,
    "bucket:Bucket.destroy_inventory": STORES,
    "bucket:Bucket.evict": STORES,
    "bucket:Bucket.inspect": ETL,
    "bucket:Bucket.objects": JOBS,
    "bucket:Bucket.rename": JOBS,
    "bucket:Bucket.show_inventory": STORES,
    "bucket:Bucket.transform": ETL,
    "bucket:Bucket.write_dataset": STORES,
    "client:Client.dsort": JOBS,
    "client:Client.etl": ETL,
    "client:Client.job": JOBS,
    "cluster:Cluster.get_cluster_logs": "administration",
    "cluster:Cluster.get_node_log": "administration",
    "cluster:Cluster.get_node_log_archive": "administration",
    "cluster:Cluster.get_performance": "administration",
    "cluster:Cluster.list_etls": ETL,
    "cluster:Cluster.list_jobs_status": JOBS,
    "cluster:Cluster.list_running_jobs": JOBS,
    "obj.object:Object.blob_download": JOBS,
    "obj.object:Object.copy": STORES,
    "obj.object:Object.multipart_upload": STORES,
    "obj.object:Object.promote": JOBS,
    "obj.object_writer:ObjectWriter.as_file": STORES,
    "types:Smap.get_target_for_object": "wants xxhash; the gateway knows the target",
}
ABSENT = {  # modules, and all below them, and names in modules: importing one raises ImportError
    "authn": "administration",
    "batch.batch.logger": PRIVATE,
    "batch.extractor": PRIVATE,
    "batch.multipart": PRIVATE,
    "blob_download_config": JOBS,
    "cluster.logger": PRIVATE,
    "dataset": STORES,
    "dsort": JOBS,
    "enums.LogSeverity": "administration",
    "enums.NodeFilter": "administration",
    "errors.ETLDirectPutTransientError": ETL,
    "errors.InvalidObjectRangeIndex": JOBS,
    "errors.InvalidPipelineError": ETL,
    "errors.JobInfoNotFound": JOBS,
    "errors.UnexpectedHTTPStatusCode": "ours raise a WireError or an AISError",
    "etl": ETL,
    "job": JOBS,
    "lock_poller": PRIVATE,
    "multiobj": JOBS,
    "obj.content_iterator": PRIVATE,
    "obj.multipart_upload": STORES,
    "obj.obj_file": PRIVATE,
    "obj.object_client": PRIVATE,
    "obj.object_iterator": PRIVATE,
    "request_client": PRIVATE,
    "request_executor": PRIVATE,
    "response_handler": PRIVATE,
    "retry_manager": PRIVATE,
    "session_manager": PRIVATE,
    "types.": "messages of " + JOBS,
    "utils.": PRIVATE,
    "wait_result": JOBS,
    "xact_const": JOBS,
}
ABSENT_FROM_SDK = {"AuthNClient", "BlobDownloadConfig", "DataShard", "Etl", "Job", "WaitResult"}


ROOT = Path(official.__file__).parent


def ours() -> dict[str, Any]:
    """Our modules that the official SDK has too, by their names below `sdk`."""
    root = Path(aisfast.sdk.__file__).parent
    names = (file.relative_to(root).with_suffix("").as_posix().replace("/", ".") for file in sorted(root.rglob("*.py")))
    return {
        name: importlib.import_module(f"aisfast.sdk.{name}")
        for name in names
        if not name.endswith("__init__") and (ROOT / f"{name.replace('.', '/')}.py").exists()
    }


MODULES = ours()


def theirs(name: str) -> Any:
    return importlib.import_module(f"aistore.sdk.{name}")


# -------------------------------------------------------------------------------------- comparisons


def parameters(called: Any) -> list[tuple[str, Any, Any]] | None:
    """Name, kind and default of each parameter; None where that is not known."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return None
    return [(its.name, its.kind, plain(its.default)) for its in signature.parameters.values()]


def plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def same_signature(our: Any, their: Any) -> bool:
    mine, want = parameters(our), parameters(their)
    if mine is None or want is None:
        return mine is want
    mine = [its for its in mine if its[:2] != ("policy", inspect.Parameter.KEYWORD_ONLY)]
    return len(mine) == len(want) and all(
        one == other or (one[:2] == other[:2] and one[0] == "endpoint") for one, other in zip(mine, want, strict=True)
    )


def fields_of(their: Any) -> dict[str, tuple[str, Any]]:
    """Of a pydantic model: the name on the wire and the default of each field."""
    return {
        name: (its.alias or name, REQUIRED if its.is_required() else its.get_default(call_default_factory=True))
        for name, its in their.model_fields.items()
    }


def differences(name: str, our: Any, their: Any) -> Iterator[str]:
    """What a program would notice, as `module:name`, `module:Class.member` or `module:Class()`."""
    if not inspect.isclass(their):
        same = same_signature(our, their) if inspect.isfunction(their) else plain(our) == plain(their)
        if not same:
            yield name
        return
    if issubclass(their, enum.Enum):
        if {its.name: its.value for its in our} != {its.name: its.value for its in their}:
            yield name
        return
    fields = hasattr(their, "model_fields")
    if fields and {its.name: (its.wire, its.value()) for its in our._specs} != fields_of(their):
        yield f"{name}()"
    if not fields and "__init__" in vars(their) and not same_signature(our, their):
        yield f"{name}()"
    for member, static in vars(their).items():
        if member.startswith("_") or member in ("model_config", "decode_opaque", *getattr(their, "model_fields", ())):
            continue
        mine = inspect.getattr_static(our, member, None)
        if isinstance(static, property):
            same = hasattr(our, member) and (static.fset is None or getattr(mine, "fset", None) is not None)
        elif callable(getattr(their, member)):
            same = hasattr(mine, "unsupported") or (
                hasattr(our, member) and same_signature(getattr(our, member), getattr(their, member))
            )
        else:
            same = hasattr(our, member)
        if not same:
            yield f"{name}.{member}"


def public(name: str) -> set[str]:
    """What an official module itself defines, constants but those of `const` included."""
    found = set()
    for node in ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {its.id for its in node.targets if isinstance(its, ast.Name)}
    return {its for its in found if not its.startswith("_")}


# -------------------------------------------------------------------------------------------- tests


def test_signatures_fields_and_values() -> None:
    found = {
        difference
        for name, module in MODULES.items()
        for its in module.__all__
        if hasattr(theirs(name), its)
        for difference in differences(f"{name}:{its}", getattr(module, its), getattr(theirs(name), its))
    }
    assert found == set(DIFFERENT)


def test_the_tables_would_notice() -> None:
    def old(self: Any, obj: Any, opaque: Any = None) -> None: ...
    def new(self: Any, obj: Any, opaque: Any = b"") -> None: ...
    def more(self: Any, obj: Any, opaque: Any = None, archpath: Any = None) -> None: ...
    def ours(self: Any, obj: Any, opaque: Any = None, *, policy: Any = None) -> None: ...

    assert same_signature(ours, old)
    assert not any(same_signature(one, old) for one in (new, more))
    assert not same_signature(old, ours)
    assert not same_signature(lambda self, item, opaque=None: None, old)


def test_methods_that_raise() -> None:
    found = {
        f"{name}:{its}.{member}"
        for name, module in MODULES.items()
        for its in module.__all__
        if inspect.isclass(getattr(module, its)) and inspect.isclass(getattr(theirs(name), its, None))
        for member in vars(getattr(theirs(name), its))
        if hasattr(getattr(getattr(module, its), member, None), "unsupported")
    }
    assert found == set(UNSUPPORTED)


def told(what: str) -> str:
    return rf"aistore\.sdk\.{re.escape(what)} is not part of aisfast.*aisfast\.accelerate\(\)"


def test_modules_and_names_that_are_absent() -> None:
    modules = {file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for file in ROOT.rglob("*.py")}
    absent = {name for name in modules if name not in MODULES and not name.endswith("__init__")}
    absent |= {
        f"{name}.{its}"
        for name, module in MODULES.items()
        if name != "const"
        for its in public(name)
        if not hasattr(module, its)
    }
    below = {entry: entry if entry.endswith(".") else f"{entry}." for entry in ABSENT}
    tabled = {name: [entry for entry in ABSENT if f"{name}.".startswith(below[entry])] for name in absent}
    assert [name for name, entries in tabled.items() if not entries] == []
    assert {entry for entries in tabled.values() for entry in entries} == set(ABSENT)
    for name in sorted(absent):
        with pytest.raises(ImportError, match="is not part of aisfast"):
            importlib.import_module(f"aisfast.sdk.{name}")
        home, _, its = f"aisfast.sdk.{name}".rpartition(".")
        with pytest.raises(ImportError, match="is not part of aisfast"):
            exec(f"from {home} import {its}")


def test_names_of_the_package() -> None:
    exported = {name for name, value in vars(official).items() if not name.startswith("_") and inspect.isclass(value)}
    assert exported - set(aisfast.sdk.__all__) == ABSENT_FROM_SDK
    for name in ABSENT_FROM_SDK:
        with pytest.raises(ImportError, match=told(name)):
            exec(f"from aisfast.sdk import {name}")


def test_errors_are_caught_as_the_official_ones() -> None:
    names = [name for name in MODULES["errors"].__all__ if inspect.isclass(getattr(theirs("errors"), name, None))]
    for one in names:
        for other in names:
            if issubclass(getattr(theirs("errors"), one), getattr(theirs("errors"), other)):
                assert issubclass(getattr(MODULES["errors"], one), getattr(MODULES["errors"], other)), (one, other)


@pytest.mark.parametrize(
    ("called", "signature"),
    [
        (BatchLoader, "(request_client)"),
        (BatchLoader.get_batch, "(self, batch_request, return_raw=False, decode_as_stream=False)"),
        (BatchRequest, "(output_format='.tar', continue_on_err=True, only_obj_name=False, streaming=True)"),
        (BatchRequest.add_object_request, "(self, obj, opaque=None, archpath=None, start=None, length=None)"),
        (BatchRequest.from_json, "(json_str)"),
        (BatchRequest.get_request_bck_name_prov, "(self)"),
        (BatchRequest.is_empty, "(self)"),
        (BatchRequest.to_dict, "(self)"),
        (BatchRequest.to_json, "(self)"),
        (BatchResponse.from_json, "(json_str)"),
        (BatchResponseItem.from_batch_request, "(batch_request, req_index)"),
        (BatchResponseItem.from_request_or_response, "(index, batch_request, batch_response)"),
        (BatchResponseItem.is_file_missing, "(self, filename)"),
    ],
)
def test_signatures_of_1_16(called: Any, signature: str) -> None:
    its = inspect.signature(called)
    bare = [one.replace(annotation=one.empty) for one in its.parameters.values()]
    assert str(its.replace(parameters=bare, return_annotation=its.empty)) == signature
