"""The official package of batches in 1.15.0."""
