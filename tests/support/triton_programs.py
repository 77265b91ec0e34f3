"""The programs of a grid at the same time, in Triton's interpreter, which by itself runs one after another.

Each program is a thread; one runs at a time and goes on until it finds too few arrivals at a meeting, with
odd seeds also, by chance, until it has arrived itself. A kernel that does not wait reads what is not written
yet (new memory is NaN, see conftest.py), and where nobody can go on the test fails instead of hanging.
"""

import inspect
import random
import threading
from contextlib import contextmanager
from unittest.mock import patch

import pytest


class Deadlock(RuntimeError):
    """Every program waits for another."""


class _Schedule:
    """Whose turn it is."""

    def __init__(self, places, seed):
        self.random, self.eager = random.Random(seed), seed % 2 == 0
        self.turns = {place: threading.Semaphore(0) for place in places}
        self.polls = dict.fromkeys(places, 0)  # in a row; the second one says that the first found too few
        self.waiting = set()
        self.error = None

    def next(self):
        """Give the turn to one that can go on."""
        able = [place for place in self.turns if place not in self.waiting]
        if able:
            self.turns[self.random.choice(able)].release()
        elif self.turns:
            self.fail(Deadlock(f"{len(self.turns)} programs wait for one another"))

    def fail(self, error):
        self.error = self.error or error
        for turn in list(self.turns.values()):
            turn.release()

    def wait_for_turn(self, place, builder):
        self.turns[place].acquire()
        if self.error is not None:
            raise self.error
        builder.grid_idx = place

    def met(self, place, arrives, builder):
        """A program is about to look at the counter, or has added itself to it."""
        if arrives:
            self.polls[place] = 0
            self.waiting.clear()
            if self.eager or self.random.random() < 0.5:
                return
        else:
            self.polls[place] += 1
            if self.polls[place] < 2:
                return
            self.waiting.add(place)
        self.next()
        self.wait_for_turn(place, builder)


class _Together:
    """Stands for a kernel; called once for each program, the last time it runs them all."""

    def __init__(self, kernel, builder, seed):
        self.kernel, self.builder, self.seed, self.places = kernel, builder, seed, []
        self.__signature__, self.__name__ = inspect.signature(kernel), kernel.__name__
        self.__globals__ = kernel.__globals__

    def __call__(self, **arguments):
        self.places.append(self.builder.grid_idx)
        x, y, z = self.builder.grid_dim
        if len(self.places) < x * y * z:
            return
        schedule = _Schedule(self.places, self.seed)
        rmw = self.builder.create_atomic_rmw

        def create_atomic_rmw(operation, pointer, value, *rest):
            arrives, place = bool(value.data.any()), self.builder.grid_idx
            if not arrives:
                schedule.met(place, False, self.builder)
            found = rmw(operation, pointer, value, *rest)
            if arrives:
                schedule.met(place, True, self.builder)
            return found

        def run(place):
            try:
                schedule.wait_for_turn(place, self.builder)
                self.kernel(**arguments)
            except BaseException as error:
                schedule.fail(error)
            del schedule.turns[place]
            if schedule.error is None:
                schedule.next()

        threads = [threading.Thread(target=run, args=(place,)) for place in self.places]
        with patch.object(self.builder, "create_atomic_rmw", create_atomic_rmw):
            for thread in threads:
                thread.start()
            schedule.next()
            for thread in threads:
                thread.join()
        if schedule.error is not None:
            raise schedule.error


@contextmanager
def programs_at_once(seed):
    """Within the block the programs of every grid run at once, in an order that the seed decides."""
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    begin = interpreter.GridExecutor.__init__

    def __init__(self, kernel, *rest):  # noqa: N807
        begin(self, kernel, *rest)
        self.fn = _Together(kernel, interpreter.interpreter_builder, seed)

    with patch.object(interpreter.GridExecutor, "__init__", __init__):
        yield
