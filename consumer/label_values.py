"""Label values: every label of a metric has few of them, so that the series stay few."""

import re

MOST_VALUES_PER_LABEL = 40
"""Further values count as `other`: a series lives as long as the pod, in the server too."""

WORD = re.compile(r"[a-z][a-z0-9_.-]{0,39}")
NUMBER = re.compile(r"[0-9]{1,19}")
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,40}")


class FewValues:
    """Lets the first few values of a label through and calls the rest `other`.

    Args:
        pattern: what a value must match in full.
        most: how many there may be.
    """

    def __init__(self, pattern: re.Pattern[str] = WORD, most: int = MOST_VALUES_PER_LABEL) -> None:
        self._pattern, self._most = pattern, most
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value as the label takes it."""
        if not value or value in self._seen:
            return value
        if not self._pattern.fullmatch(value) or len(self._seen) >= self._most:
            return "other"
        self._seen.add(value)
        return value
