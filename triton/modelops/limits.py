"""Limits: the most that an export may be asked for; beyond them lie typing errors, not models."""

DEFAULT_MAX_BATCH_SIZE = 32
MOST_BATCH_SIZE = 1024
MOST_DETECTIONS = 100_000
LARGEST_SIDE_PIXELS = 4096
