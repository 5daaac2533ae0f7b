"""Reshapes: what the shapes that exporters write into a file become at another size and with any batch."""

import math

from consumer.errors import SetupError
from modelops.grids import Size, own_size_advice


def reshape_target(
    old_in: list[int], old_out: list[int], new_in: list[int | None], old_size: Size, new_size: Size
) -> list[int]:
    """Say what a Reshape from old_in to old_out must become when its input is new_in and its batch is free.

    Both shapes are cut into the shortest runs of equal products; each run is translated by itself.

    Returns:
        The new shape as Reshape takes it: 0 copies a dimension, one -1 is worked out.

    Raises:
        SetupError: a run changed in a way that is not understood.
    """
    target: list[int] = []
    for ins, outs in _runs(old_in, old_out):
        before, after = old_in[ins], old_out[outs]
        now = new_in[ins]
        if ins.start == 0 or None in now:
            target += _with_batch(before, after, now, old_size, same_place=ins.start == outs.start)
        elif before in (now, after):
            target += [size or 0 for size in (after if before == now else now)]
        elif len(after) == 1:
            target.append(math.prod(size or 0 for size in now))
        else:
            target += _split_grid(after, [size or 0 for size in now], old_size, new_size)
    if target.count(-1) > 1:
        raise _not_understood(old_out, old_size)
    return target


def _with_batch(
    before: list[int], after: list[int], now: list[int | None], old: Size, *, same_place: bool
) -> list[int]:
    """Translate the run that holds the batch, in front of everything else in it."""
    if len(before) == len(after) == 1:
        return [0] if same_place else [-1]
    if len(after) > 1 and now[1:] != before[1:]:
        # Two of its sizes may follow the picture, and which one is not to be seen.
        raise _not_understood(after, old)
    return [-1, *after[1:]]


def _split_grid(after: list[int], now: list[int], old: Size, new: Size) -> list[int]:
    """Cut a run of cells back into rows and columns."""
    for stride in (1, 2, 4, 8, 16, 32, 64):
        cells = [new[0] // stride, new[1] // stride]
        if after == [old[0] // stride, old[1] // stride] and math.prod(cells) == math.prod(now):
            return cells
    raise _not_understood(after, old)


def _not_understood(after: list[int], old: Size) -> SetupError:
    return SetupError(
        f"A Reshape to {after} belongs to pictures of {old[0]}x{old[1]} and is not understood; "
        f"{own_size_advice(*old)}"
    )


def _runs(before: list[int], after: list[int]) -> list[tuple[slice, slice]]:
    """Cut two shapes of one size into the shortest runs with equal products."""
    runs, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        first_i, first_j = i, j
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        if i == len(before) or j == len(after):  # ones at the end belong to the last run
            i, j = len(before), len(after)
        runs.append((slice(first_i, i), slice(first_j, j)))
    return runs
