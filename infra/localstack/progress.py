"""One line for each step, with how many there are and how long it took."""

import contextlib
import sys
import time


class Progress:
    """Counts steps, of which it knows how many there will be."""

    def __init__(self, steps):
        self.steps = steps
        self.done = 0
        self.began = time.monotonic()

    @contextlib.contextmanager
    def step(self, what):
        began = time.monotonic()
        place = f"[{self.done + 1:>2}/{self.steps}]"
        # On a terminal the line is there before its outcome.
        if sys.stdout.isatty():
            print(f"{place} ...    {what}", end="\r", flush=True)
        outcome = "failed"
        try:
            yield
            outcome = "ok"
            self.done += 1
        finally:
            print(f"{place} {outcome:<7}{what}  {time.monotonic() - began:.1f} s", flush=True)

    def summary(self):
        return f"all {self.steps} steps went as they must, in {time.monotonic() - self.began:.0f} s"
