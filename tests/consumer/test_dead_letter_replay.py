"""What failed, sent again: it ends as a result with its mark, or as a dead letter that does not go round."""

import json
from pathlib import Path

import pytest

from consumer.replay_mark import HEADER, ReplayMark
from tests.brokers.topics import create_topic
from tests.command_line import vault_ml
from tests.worlds import World, keys


def test_a_replayed_event_ends_as_a_result_with_its_mark_or_as_a_letter_that_counts(
    world: World, clip: Path
) -> None:
    mended, lost = (world.store(f"cam/{name}.mp4", clip) for name in ("mended", "lost"))
    mended["data"] = {"storage_uri": "https://elsewhere", "storage_secret": "a-tenant-secret-key"}
    for key in ("cam/mended.mp4", "cam/lost.mp4"):
        del world.vault.recordings[key]
    world.send(mended, lost)
    with world.pod() as pod:
        world.letters(2)
        world.vault.add("cam/mended.mp4", clip)
        done = vault_ml("dead-letter", "replay", "--reason", "refused", "--yes", environ=world.environ)
        assert done.returncode == 0, done.stderr
        assert "Sent 2 of 2 events again." in done.stderr

        (result,) = world.results(1)
        assert keys([result]) == ["cam/mended.mp4"]
        mark = ReplayMark.from_json(result.headers[HEADER])
        assert mark is not None
        assert (mark.of, mark.count) == ("dead-letter", 1)
        assert json.loads(result.value or b"")["data"].keys() == {"probabilities", "labels", "boxes"}

        again = world.letters(3)[-1]["deadLetter"]
        assert (again["attributes"]["key"], again["attributes"]["replay"]) == ("cam/lost.mp4", "1")
        left_alone = vault_ml("dead-letter", "replay", "--all", "--yes", environ=world.environ)
        assert "Nothing is to be sent." in left_alone.stderr
        assert "1 that failed again after they had been are left out" in left_alone.stderr

        once_more = vault_ml(
            "dead-letter", "replay", "--reason", "refused", "--again", "--yes", environ=world.environ
        )
        assert "replay 2" in once_more.stderr
        attributes = [letter["deadLetter"]["attributes"] for letter in world.letters(4)]
        assert [each.get("replay", "0") for each in attributes if each["key"] == "cam/lost.mp4"] == [
            "0",
            "1",
            "2",
        ]
        assert pod.stop() == 0


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_letters_that_are_too_large_for_their_topic_name_the_recording_and_can_be_sent_again(
    world: World, clip: Path, delivery: str
) -> None:
    create_topic(world.kafka.bootstrap, world.letters_topic, config={"max.message.bytes": "2000"}, exact=True)
    large, full = (world.store(f"cam/{name}.mp4", clip) for name in ("large", "full"))
    large["payload"]["metadata"]["note"] = "n" * 20_000
    # As much as a reduced event keeps of each name, so that there is no room for that one either.
    full |= dict.fromkeys(("date", "events", "provider", "request"), "n" * 250)
    for key in ("cam/large.mp4", "cam/full.mp4"):
        del world.vault.recordings[key]
    world.send(large, full, b"{" + b"x" * 20_000)
    with world.pod(KAFKA_DELIVERY=delivery) as pod:
        letters = [letter["deadLetter"]["attributes"] for letter in world.letters(3)]
        pod.wait_for(lambda: world.committed() == {0: 3}, "committed")
        for name in ("large", "full"):
            world.vault.add(f"cam/{name}.mp4", clip)
        arguments = ("replay", "--camera", "highway4", "--yes")
        done = vault_ml("dead-letter", *arguments, environ=world.environ | {"KAFKA_DELIVERY": delivery})
        assert "Sent 2 of 2 events again." in done.stderr
        assert sorted(keys(world.results(2))) == ["cam/full.mp4", "cam/large.mp4"]
        assert pod.stop() == 0
    told = {letter.get("key"): (letter.get("camera"), letter["payload"]) for letter in letters}
    # At least once, messages travel in batches, and one that is too large is refused as a whole.
    assert told["cam/large.mp4"][0] == told["cam/full.mp4"][0] == "highway4"
    assert delivery == "at-least-once" or told["cam/large.mp4"][1] == "reduced to what names the recording"
    assert "were left out" in told["cam/full.mp4"][1]
    assert "were left out" in told[None][1]


def test_the_letters_are_listed_with_a_pods_own_variables(world: World, clip: Path) -> None:
    gone = world.store("cam/gone.mp4", clip)
    del world.vault.recordings["cam/gone.mp4"]
    world.send(gone, b"{no json")
    with world.pod() as pod:
        world.letters(2)
        assert pod.stop() == 0
    listed = vault_ml("dead-letter", "list", "--json", "--from", "1h", environ=world.environ)
    letters = {letter["reason"]: letter for letter in map(json.loads, listed.stdout.splitlines())}
    assert letters["refused"]["camera"] == "highway4"
    assert letters["refused"]["recorded"] == "2021-09-03T04:31:08Z"
    assert letters["malformed"]["source"].startswith(f"{world.source}/0/")
