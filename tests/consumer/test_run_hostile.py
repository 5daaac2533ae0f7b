"""`vault-ml run` among hostile recordings and events: each has its reason, and the others do not notice."""

import json
from pathlib import Path

from tests.hostile_media import Movie, fragmented
from tests.worlds import World, keys


def test_hostile_recordings_are_buried_with_their_reason_and_lies_about_sizes_change_nothing(
    world: World, clip: Path, tmp_path: Path
) -> None:
    honest = {f"cam/{name}.mp4": size for name, size in (("small", 5), ("huge", 10**18), ("odd", "many"))}
    for key, size in honest.items():
        event = world.store(key, clip)
        event["payload"]["fileSize"] = size
        world.send(event)
    world.send(world.store("../../etc/passwd", clip))
    hostile = {
        "cam/table.mp4": ("too_large", Movie(samples=2**32 - 1, one_chunk=True, sample_bytes=1).build()),
        "cam/fragments.mp4": ("too_large", fragmented(2**32 - 1)),
        "cam/playlist.mp4": ("undecodable", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
    }
    for key, (_, data) in hostile.items():
        path = tmp_path / "hostile"
        path.write_bytes(data)
        path = path.rename(tmp_path / key.replace("/", "-"))
        world.send(world.store(key, path))
    world.send(b'{"payload": {"key": "a.mp4"}, "number": ' + b"9" * 100_000 + b"}")
    with world.pod() as pod:
        assert sorted(keys(world.results(4))) == sorted([*honest, "../../etc/passwd"])
        letters = [letter["deadLetter"]["attributes"] for letter in world.letters(4)]
        assert pod.stop() == 0
    expected = {key: reason for key, (reason, _) in hostile.items()}
    assert {letter["key"]: letter["reason"] for letter in letters if "key" in letter} == expected
    assert sorted(letter["reason"] for letter in letters) == sorted([*expected.values(), "malformed"])
    assert all(json.dumps(letter).count("root:") == 0 for letter in letters)
