"""Prints a line for each step with its duration."""

import contextlib
import sys
import threading
import time


class Progress:
    """Counts a known number of steps. Steps may be concurrent."""

    def __init__(self, steps):
        self.steps = steps
        self.done = 0
        self.ending = threading.Lock()
        self.began = time.monotonic()

    @contextlib.contextmanager
    def step(self, what):
        began = time.monotonic()
        # A terminal shows the step before its outcome.
        if sys.stdout.isatty():
            self.line("...", what, "\r")
        outcome = "failed"
        try:
            yield
            outcome = "ok"
        finally:
            with self.ending:
                self.line(outcome, f"{what}  {time.monotonic() - began:.1f} s", "\n")
                self.done += outcome == "ok"

    def line(self, outcome, what, end):
        print(f"[{self.done + 1:>2}/{self.steps}] {outcome:<7}{what}{end}", end="", flush=True)

    def summary(self):
        return f"all {self.steps} steps passed in {time.monotonic() - self.began:.0f} s"
