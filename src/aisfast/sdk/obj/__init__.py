"""The official package of objects."""
