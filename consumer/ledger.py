"""Ledger: what became of every packet and every decoded frame of one recording."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ledger:
    """The account of one recording; all values are counts.

    packets = decoded + not_needed + undecodable, and decoded = inferred + not_sampled + dropped.

    packets: how many the file holds; None where it was not read through, and packets_reason says why.
        The other counts then speak about the packets that were read.
    decoded: came out of the decoder as a frame.
    not_needed: nothing that was looked at depends on it, so the decoder never saw it (or it shows nothing).
    undecodable: the decoder refused it, or no keyframe that it builds on is there.
    inferred: looked at by the model.
    not_sampled: decoded only because a sampled frame builds on it.
    dropped: decoded and chosen, but not looked at; by reason.
    """

    packets: int | None
    packets_reason: str | None
    decoded: int
    not_needed: int
    undecodable: int
    inferred: int
    not_sampled: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether every packet and every frame is accounted for exactly once."""
        counts = [self.decoded, self.not_needed, self.undecodable, self.inferred, self.not_sampled]
        counts.extend(self.dropped.values())
        read = self.decoded + self.not_needed + self.undecodable
        return (
            min(counts) >= 0
            and (self.packets is None) == (self.packets_reason is not None)
            and (self.packets is None or self.packets == read)
            and self.decoded == self.inferred + self.not_sampled + sum(self.dropped.values())
        )

    def to_json(self) -> dict[str, object]:
        """Give the account as JSON-able values; `packets_reason` only where `packets` is null."""
        account: dict[str, object] = {"packets": self.packets}
        if self.packets_reason is not None:
            account["packets_reason"] = self.packets_reason
        return account | {
            "decoded": self.decoded,
            "not_needed": self.not_needed,
            "undecodable": self.undecodable,
            "inferred": self.inferred,
            "not_sampled": self.not_sampled,
            "dropped": dict(self.dropped),
        }
