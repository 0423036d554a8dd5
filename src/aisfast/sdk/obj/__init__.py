"""The official package of objects."""

from aisfast.sdk._modules import modules_of

__getattr__ = modules_of(__name__)
