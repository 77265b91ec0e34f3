"""Where the programs of one tile of rows wait for one another.

A counter in memory goes up by one for each program and step. All programs must run at once, or one
waits for ever for another that has not begun: launches that use it are cooperative, and their grid is no
larger than what fits on the device together.
"""

import triton
import triton.language as tl


@triton.jit
def arrive(counter):
    """Say that this program has written what others will read."""
    tl.debug_barrier()  # all its threads have
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait_for(counter, arrivals):
    """Go on once so many have arrived; what they wrote can be read then."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < arrivals:
        pass
    tl.debug_barrier()
