"""The result of each step, and the report of all of them as Markdown."""

import datetime
from dataclasses import dataclass, field


class NotHere(Exception):
    """The reason why a step is not possible on this emulator."""


@dataclass
class Result:
    name: str
    outcome: str
    seconds: float = 0
    notes: list = field(default_factory=list)


class Report:
    def __init__(self, where):
        self.where = where
        self.began = datetime.datetime.now(datetime.UTC)
        self.results = []

    def add(self, result):
        self.results.append(result)

    def failed(self):
        return any(result.outcome == "failed" for result in self.results)

    def markdown(self):
        lines = [
            "# First deployment", "", f"{self.where}. Started {self.began:%Y-%m-%d %H:%M} UTC.", "",
            "| step | outcome | time |", "|---|---|--:|",
            *(f"| {each.name} | {each.outcome} | {each.seconds:.0f} s |" for each in self.results),
        ]
        for result in self.results:
            if result.notes:
                lines += ["", f"## {result.name}", "", *(f"- {note}" for note in result.notes)]
        return "\n".join(lines) + "\n"
