"""The official module path of `Provider`."""

from aisfast.enums import ALIAS_GS, ALIAS_S3, Provider, provider_aliases
from aisfast.unsupported import absent

__all__ = ["ALIAS_GS", "ALIAS_S3", "Provider", "provider_aliases"]
__path__, __getattr__ = absent(__name__)
