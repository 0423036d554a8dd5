"""The official package of batches: `Batch` and, from 1.15.1 to 1.16, what came before it."""

from aisfast.sdk._modules import modules_of

__getattr__ = modules_of(__name__)
