"""Dead letters as they are read back, one for each number."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from consumer.dead_letter import SERVICE
from consumer.letters import DeadLetter

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def letter(number: int, key: str = "", **changed: object) -> DeadLetter:
    """Return the letter of a recording that lies in the topic so far behind the first."""
    name = key or f"{number}.mp4"
    made = DeadLetter(
        position=f"0/{number}",
        id=name.encode().hex().ljust(64, "0"),
        at=NOON + timedelta(hours=number),
        reason="undecodable",
        envelope_reason="handler_error",
        sentence="It has no video track.",
        attempts=1,
        replays=0,
        key=name,
        provider="storj",
        camera="highway4",
        recorded="",
        source=f"source/0/{number}/0",
        destination="source",
        service=SERVICE,
        payload=json.dumps({"payload": {"key": name}}).encode(),
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # of any field
