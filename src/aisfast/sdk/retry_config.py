"""The official module path of `RetryConfig`."""

from aisfast.retry import NETWORK_RETRY_EXCEPTIONS, ColdGetConf, RetryConfig
from aisfast.unsupported import absent

__all__ = ["NETWORK_RETRY_EXCEPTIONS", "ColdGetConf", "RetryConfig"]
__path__, __getattr__ = absent(__name__)
