"""The official module path of the errors. Those of parts that are not here (jobs, pipelines) are missing."""

from aisfast.errors import (
    AISError,
    AISRetryableError,
    ErrBckAlreadyExists,
    ErrBckNotFound,
    ErrETLAlreadyExists,
    ErrETLNotFound,
    ErrGETConflict,
    ErrObjNotFound,
    ErrRemoteBckNotFound,
    InvalidBckProvider,
    InvalidURLException,
    NoTargetError,
)
from aisfast.errors import AISError as APIRequestError  # the official root, above AISError
from aisfast.errors import AISTimeoutError as Timeout
from aisfast.unsupported import absent

__all__ = [
    "AISError",
    "AISRetryableError",
    "APIRequestError",
    "ErrBckAlreadyExists",
    "ErrBckNotFound",
    "ErrETLAlreadyExists",
    "ErrETLNotFound",
    "ErrGETConflict",
    "ErrObjNotFound",
    "ErrRemoteBckNotFound",
    "InvalidBckProvider",
    "InvalidURLException",
    "NoTargetError",
    "Timeout",
]
__path__, __getattr__ = absent(__name__)
