"""Training on few data: so many passes over them teach, and more teach them by heart."""

import math


def within_passes(
    steps: int, batch_size: int, *, chunks: float, most_passes: float, least_batch: int, fewest_steps: int
) -> tuple[int, int]:
    """Steps, and chunks a step, that pass over the data at most so often: first batches become smaller, which
    leaves as many updates, then steps become fewer. Never more of either than given.

    Args:
        steps, batch_size: for data enough.
        chunks: in one pass.
        most_passes: at most so many, unless the next two ask for more.
        least_batch: no smaller one; fewest_steps: no fewer, as a network that has hardly moved knows nothing.
    """
    most = most_passes * chunks
    batch = min(batch_size, max(least_batch, math.ceil(most / steps)))
    return min(steps, max(fewest_steps, round(most / batch))), batch
