"""The report of a run: what was done, what came of it, and how long somebody waited; as JSON and Markdown."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.books import Balance
from tests.faults.schedule import KINDS
from tests.faults.stalls import Stall, Waits, median_and_worst

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
"""Between these lines of a document stands what `scripts/soak --write` puts there."""


@dataclass(frozen=True)
class Report:
    """What is said about a run.

    Args:
        command: what repeats it.
        seconds: how long recordings kept coming.
        messages: how many were sent.
        faults: how often each kind happened.
        balance: of the books.
        problems: whatever else is not as it must be, one sentence each.
        stall: the longest one.
        stall_faults: what happened around it.
        after_begin, after_end: how long recordings waited that were stored after a fault began, or was over.
        peak_main_bytes, peak_consumer_bytes: resident memory of one main process, and of one consumer.
        cpus: of the machine.
        ended: what consumers said that ended without having been ended.
    """

    command: str
    seconds: float
    messages: int
    faults: Mapping[str, int]
    balance: Balance
    problems: Sequence[str]
    stall: Stall
    stall_faults: Sequence[str]
    after_begin: Mapping[str, Waits]
    after_end: Mapping[str, Waits]
    peak_main_bytes: int
    peak_consumer_bytes: int
    cpus: int
    ended: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether everything is as it must be."""
        return self.balance.balanced and not self.problems

    def to_json(self) -> str:
        """Return all of it."""
        return json.dumps({"passed": self.passed, **asdict(self)}, indent=2)

    def to_markdown(self) -> str:
        """Return two tables: the books, and the faults."""
        balance = self.balance
        lines = [
            f"`{self.command}`, on {self.cpus} CPUs:",
            "",
            "| | |",
            "|---|---|",
            f"| recordings kept coming for | {self.seconds / 60:.1f} minutes |",
            f"| faults | {sum(self.faults.values())} |",
            f"| events in | {balance.events} |",
            f"| results | {balance.results} |",
            f"| dead letters | {balance.letters} |",
            f"| lost | {len(balance.lost)} |",
            f"| duplicated | {len(balance.duplicated)} |",
            f"| wrong | {len(balance.wrong)} |",
            f"| longest stall | {self.stall.seconds:.1f} s ({', '.join(self.stall_faults) or 'no fault'}) |",
            f"| events a second, on average | {balance.events / max(1.0, self.seconds):.1f} |",
            f"| most memory of a main process | {self.peak_main_bytes / 2**20:.0f} MiB |",
            f"| most memory of a consumer, workers included | {self.peak_consumer_bytes / 2**20:.0f} MiB |",
            f"| consumers that ended by themselves and were started again | {len(self.ended)} |",
            "",
            "| Fault | Times | First result | Every partition | Every partition, once it was over |",
            "|---|---|---|---|---|",
            *(self._row(kind) for kind in KINDS if self.faults.get(kind)),
            "",
            "Seconds, median / worst: from the beginning of the fault (last column: from its end) until",
            "a recording that was stored after that had its result; from any partition, or from the slowest.",
        ]
        return "\n".join(lines) + "\n"

    def _row(self, kind: str) -> str:
        begun, over = self.after_begin.get(kind), self.after_end.get(kind)
        cells = [
            KINDS[kind].words,
            str(self.faults[kind]),
            median_and_worst(begun.first if begun else ()),
            median_and_worst(begun.everywhere if begun else ()),
            "-" if KINDS[kind].instant else median_and_worst(over.everywhere if over else ()),
        ]
        return f"| {' | '.join(cells)} |"


def count_kinds(kinds: Sequence[str]) -> dict[str, int]:
    """Return how often each kind occurs, in the order of KINDS."""
    counted = Counter(kinds)
    return {kind: counted[kind] for kind in KINDS if counted[kind]}


def write_into(document: Path, markdown: str) -> None:
    """Put a report between the two lines of a document that say where it stands.

    Raises:
        ValueError: the document does not have them.
    """
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN} and {END}: put them where the tables shall stand.")
    document.write_text(f"{before}{BEGIN}\n\n{markdown}\n{END}{after}", encoding="utf-8")
