"""What SECURITY.md promises has a test behind it, and speaks of the program as it is."""

import re
from collections.abc import Iterator
from pathlib import Path

from consumer import boxes, errors, events, settings, vault, video
from consumer.claims import MAX_SAMPLES
from tests.test_documents import names_in, rows, section, text_of

ROOT = Path(__file__).parents[1]
POLICY = "SECURITY.md"
HOSTILE = "Hostile events, each with its limit"


def reasons(kind: type[errors.VaultMLError] = errors.VaultMLError) -> Iterator[str]:
    yield kind.reason
    for each in kind.__subclasses__():
        yield from reasons(each)


def test_every_test_that_the_policy_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of(POLICY)))
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in written] == []


def test_every_hostile_event_has_a_limit_a_reason_and_a_test() -> None:
    known = {*reasons(), "retry_exhausted"}
    for what, limit, then, test in rows(section(POLICY, HOSTILE)):
        assert limit, what
        assert set(names_in(then)) <= known, what
        assert names_in(test), what


def test_the_limits_of_the_policy_are_the_codes() -> None:
    limits = {row[0]: row[1] for row in rows(section(POLICY, HOSTILE))}
    assert limits["a message of 50 MB"] == f"{events.MAX_BYTES // 1024**2} MiB are read"
    assert (
        f"{events.MAX_DEPTH} levels"
        in limits["deep nesting, names that are there twice, huge numbers, half characters"]
    )
    assert f"{events.MAX_KEY_BYTES} bytes" in limits["a key with `..`, NUL, newlines, or of 10 MB"]
    width, height = map(int, limits["more pixels than a camera makes"].split(" x "))
    assert width * height == video.MAX_PIXELS
    assert limits["redirects in a circle"] == str(vault.MAX_REDIRECTS)
    assert limits["tables that claim millions of pictures"] == f"{MAX_SAMPLES:,}"
    assert limits["boxes in boxes in boxes, or in a circle"] == f"{boxes.MAX_BOXES:,} boxes"


def test_every_setting_that_the_policy_names_exists() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\w+)?`", text_of(POLICY)))
    values = {"SASL_SSL", "SASL_PLAINTEXT"}
    assert named - settings.known_names() - values == {"TRITON_ADMIN_KEY"}
