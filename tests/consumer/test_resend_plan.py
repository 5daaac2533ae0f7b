"""Which letters are sent again, and as what: decided from what they and the notes beside them say."""

from consumer.letter_text import as_json, state
from consumer.replay_mark import ReplayMark
from consumer.resend_plan import plan_of
from tests.consumer.failed import NOON, letter


def test_a_note_about_another_recording_is_not_this_letters() -> None:
    """The topic of letters was made anew: places come again, and the notes beside it are still there."""
    anew, same = letter(0, "new.mp4"), letter(1)
    marks = {
        each.position: ReplayMark("dead-letter", identity, 1, "2026-05-01T10:00:00Z")
        for each, identity in ((anew, letter(0, "old.mp4").id), (same, same.id))
    }
    plan = plan_of([anew, same], marks, source="source", now=NOON)
    assert [(each.letter, each.mark.count, each.noted) for each in plan.sendings] == [(anew, 1, None)]
    assert [left_out for left_out, _ in plan.left_out] == [same]
    assert [state(each, marks) for each in (anew, same)] == ["", "sent again 2026-05-01T10:00:00"]
    assert [as_json(each, marks)["sent_again_at"] for each in (anew, same)] == [None, "2026-05-01T10:00:00Z"]


def test_a_letter_that_was_noted_by_its_place_was_sent() -> None:
    strange = letter(7, id="no id at all")
    marks = {"0/7": ReplayMark("dead-letter", "0/7", 1, "2026-05-01T10:00:00Z")}
    assert plan_of([strange], marks, source="source", now=NOON).sendings == ()
