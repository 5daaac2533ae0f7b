"""Promises of consumer/media.py: a recording can be opened again and again."""

from pathlib import Path

from consumer.media import FileMedia


def test_a_media_opens_as_often_as_asked_with_independent_positions(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"0123456789")
    media = FileMedia(path, name="camera/a.mp4")
    with media.open() as one, media.open() as other:
        one.seek(5)
        assert (one.read(2), other.read(2)) == (b"56", b"01")
    assert (media.name, media.size_bytes) == ("camera/a.mp4", 10)
