"""The version, in one place that neither imports nor builds anything."""

__version__ = "0.1.0"
