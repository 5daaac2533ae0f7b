"""Class names as people's editors and tools write them."""

from pathlib import Path

import pytest

from consumer.errors import SetupError
from modelops.labels import read_labels


def _read(tmp_path: Path, content: bytes) -> tuple[str, ...] | None:
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    return read_labels(tmp_path / "model.onnx", "0" * 64, {}, file)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"cat\ndog\n", id="plain"),
        pytest.param(b"\n  cat \n\ndog", id="blank lines"),
        pytest.param(b"\xef\xbb\xbfcat\r\ndog\r\n", id="Windows, with a byte order mark"),
    ],
)
def test_one_name_a_line_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    assert _read(tmp_path, content) == ("cat", "dog")


def test_names_of_all_alphabets_stay_as_they_are(tmp_path: Path) -> None:
    names = (
        "\u0631\u0627\u0647\u200c\u0622\u0647\u0646",
        "traffic\u00a0light",
        "Fu\u00dfg\u00e4nger",
        "\u81ea\u8ee2\u8eca",
        '\U0001f436 "dog"',
    )
    assert _read(tmp_path, "\n".join(names).encode()) == names


def test_two_classes_may_have_one_name(tmp_path: Path) -> None:
    assert _read(tmp_path, b"vehicle\nvehicle\nperson\n") == ("vehicle", "vehicle", "person")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("cat\ndog\n".encode("utf-16"), "save it as UTF-8 text", id="UTF-16"),
        pytest.param(b"caf\xe9\n", "save it as UTF-8 text", id="Latin-1"),
        pytest.param("cat\ndog\n".encode("utf-16-le"), "no control characters", id="UTF-16, no mark"),
        pytest.param(b"cat\n\x1b[31mdog\n", "no control characters", id="colours of a terminal"),
        pytest.param(b"cat\n" + b"d" * 1000, "at most 200 letters", id="not a list of names"),
        pytest.param(b"\n \n", "holds no labels", id="nothing"),
    ],
)
def test_what_is_no_list_of_names_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(SetupError, match=sentence):
        _read(tmp_path, content)


def test_a_directory_is_no_file_of_labels(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot be read \(Is a directory\): give a file"):
        read_labels(tmp_path / "model.onnx", "0" * 64, {}, tmp_path)


def test_names_in_the_metadata_are_names_too(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"The metadata of model\.onnx holds 'dog\\x1b\[31m'"):
        read_labels(tmp_path / "model.onnx", "0" * 64, {"names": r"{0: 'cat', 1: 'dog\x1b[31m'}"}, None)
