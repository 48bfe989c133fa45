"""Restore points on tape: images that anyone restores with zstd alone."""
