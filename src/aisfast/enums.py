"""Small closed sets of the official API: providers, colocation, presence, list flags, archive modes."""

from __future__ import annotations

from enum import Enum, IntEnum

from aisfast.errors import InvalidBckProvider


class Provider(Enum):
    """Who stores a bucket."""

    AIS = "ais"
    AMAZON = "aws"
    AZURE = "azure"
    GOOGLE = "gcp"
    OCI = "oci"

    def is_remote(self) -> bool:
        """Whether a cloud stores it, and the cluster only caches it."""
        return self is not Provider.AIS

    @staticmethod
    def parse(provider: Provider | str) -> Provider:
        """The provider of that name or alias (`s3`, `gs`, `az`, `oc`).

        Raises:
            InvalidBckProvider: There is none.
        """
        if isinstance(provider, Provider):
            return provider
        try:
            return Provider(provider_aliases.get(provider, provider))
        except (ValueError, TypeError):
            raise InvalidBckProvider(provider) from None


ALIAS_S3 = "s3"
ALIAS_GS = "gs"
provider_aliases = {ALIAS_S3: "aws", ALIAS_GS: "gcp", "az": "azure", "oc": "oci"}


class Colocation(IntEnum):
    """How the entries of a batch are spread over targets, a hint for choosing the one that assembles it."""

    NONE = 0
    TARGET_AWARE = 1  # most are on one target, or a few
    TARGET_AND_SHARD_AWARE = 2  # and most archive members are in a few shards; no server makes use of it yet


class FLTPresence(IntEnum):
    """Which buckets and objects a question is about, by where they are."""

    FLT_EXISTS = 0
    FLT_EXISTS_NO_PROPS = 1
    FLT_PRESENT = 2
    FLT_PRESENT_NO_PROPS = 3
    FLT_PRESENT_CLUSTER = 4
    FLT_EXISTS_OUTSIDE = 5


class ListObjectFlag(Enum):
    """Options of a listing; each value is the position of its bit."""

    CACHED = 0
    MISSING = 1
    DELETED = 2
    ARCH_DIR = 3
    NAME_ONLY = 4
    NAME_SIZE = 5
    BCK_PRESENT = 6
    DONT_HEAD_REMOTE = 7
    DONT_ADD_REMOTE = 8
    NOT_CACHED = 9
    ONLY_REMOTE_PROPS = 10
    NO_RECURSION = 11
    DIFF = 12
    NO_DIRS = 13
    IS_S3 = 14
    NBI = 15

    @staticmethod
    def join_flags(flags: list[ListObjectFlag]) -> int:
        """The bit mask of several flags."""
        return sum(1 << flag.value for flag in set(flags))


class ArchiveMode(Enum):
    """How a pattern selects members of an archive."""

    REGEXP = "regexp"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    SUBSTR = "substr"
    WDSKEY = "wdskey"
