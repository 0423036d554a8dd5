"""The official package of batches in 1.15.0."""

from aisfast.sdk._modules import modules_of

__getattr__ = modules_of(__name__)
