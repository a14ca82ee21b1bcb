"""The results of a storm: its counts, of which all but the first few must be 0."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass
class Tally:
    """`times`: how often the fault was provoked. `trials`: wanted; `whole`: those with each report once and right."""

    fault: str
    store: str
    seed: int
    times: int = 0
    trials: int = 0
    whole: int = 0
    lost: int = 0
    failed: int = 0
    twice: int = 0
    """More trials than slots, slots than the budget, or an attempt with two writers."""
    wrong: int = 0
    """Trials with a report too few, too many or with another value."""
    foreign: int = 0
    """Files in an attempt's folder that another attempt wrote or touched."""
    mistakes: int = 0
    """Workers' tracebacks."""
    dead: int = 0
    """Workers that ended without being killed, before the end and not as they should."""
    left: int = 0
    """Trainers that outlived their workers."""
    other: dict[str, int] = field(default_factory=dict)
    """What only this fault may break; must be 0, too."""
    notes: list[str] = field(default_factory=list)

    @property
    def zeros(self) -> dict[str, int]:
        named = {name: getattr(self, name) for name in ZEROS}
        return named | self.other

    @property
    def is_clean(self) -> bool:
        return not any(self.zeros.values()) and self.whole == self.trials

    def add(self, other: Tally) -> None:
        for each in fields(self):
            if each.type == "int" and each.name != "seed":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        for name, count in other.other.items():
            self.other[name] = self.other.get(name, 0) + count
        self.notes += other.notes

    def __str__(self) -> str:
        found = ", ".join(f"{name} {count}" for name, count in self.zeros.items())
        notes = "".join(f"\n  {note}" for note in self.notes)
        return (
            f"{self.fault} on {self.store}, seed {self.seed}: {self.times} times; "
            f"trials wanted {self.trials}, whole {self.whole}; {found}{notes}"
        )


ZEROS = ("lost", "failed", "twice", "wrong", "foreign", "mistakes", "dead", "left")
