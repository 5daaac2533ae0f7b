"""What must be known of a model is read from its file, said by its user, or asked for; never guessed."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from consumer.errors import SetupError
from modelops import graph, network
from modelops.graph import PixelFacts
from modelops.source import Options, read_source, readings, weigh
from tests.modelops import little_models
from tests.modelops.layouts import LAYOUTS

ULTRALYTICS = {"author": "Ultralytics", "task": "detect", "stride": "32"}
TWO_NAMES = {"names": "{0: 'cat', 1: 'dog'}"}


def _saved(model: ModelProto, file: Path) -> Path:
    onnx.save(model, file)
    return file


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    file = tmp_path / "labels.txt"
    file.write_text("cat\ndog\ncow\n")
    return file


@pytest.fixture
def yolox(tmp_path: Path) -> Path:
    return _saved(little_models.yolox(64, 64), tmp_path / "little.onnx")


def _answering(
    shapes: dict[str, list[int]], metadata: dict[str, str] | None = None, fill: float = 0.0
) -> ModelProto:
    """A file for pictures of 64x64 that answers the same number everywhere, whatever it is shown."""
    nodes = [helper.make_node("ReduceMax", ["images"], ["one"], axes=[1, 2, 3], keepdims=0)]
    constants = []
    for name, shape in shapes.items():
        constants += [
            helper.make_tensor(f"{name}_shape", TensorProto.INT64, [len(shape)], shape),
            helper.make_tensor(f"{name}_zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor(f"{name}_fill", TensorProto.FLOAT, [], [fill]),
        ]
        nodes += [
            helper.make_node("Mul", ["one", f"{name}_zero"], [f"{name}_nothing"]),
            helper.make_node("Add", [f"{name}_nothing", f"{name}_fill"], [f"{name}_one"]),
            helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]),
        ]
    model = helper.make_model(
        helper.make_graph(
            nodes, "constant",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(model, metadata or {})
    return model


def test_a_file_that_does_not_say_its_pixels_lists_the_options_to_give(yolox: Path, labels: Path) -> None:
    with pytest.raises(SetupError) as caught:
        read_source(yolox, Options(labels=labels))

    assert str(caught.value) == (
        "little.onnx does not say how it is to be read, and a wrong guess would only make it a bad detector: "
        "give --layout yolox --colour bgr --scale 255 --resize letterbox (YOLOX since 0.1.1), or what its "
        "training used."
    )


def test_the_options_that_are_listed_are_enough(yolox: Path, labels: Path) -> None:
    options = Options(layout="yolox", colour="bgr", scale="255", resize="letterbox", labels=labels)
    source = read_source(yolox, options)

    assert (source.layout, source.pixels) == ("yolox", PixelFacts("bgr", "255", "letterbox"))
    assert source.labels == ("cat", "dog", "cow")


def test_what_nobody_trains_with_by_default_is_listed_in_full(yolox: Path, labels: Path) -> None:
    with pytest.raises(SetupError) as caught:
        read_source(yolox, Options(colour="rgb", resize="letterbox", labels=labels))

    assert (
        "give --layout yolox --colour rgb --scale 1 --resize letterbox, or --layout yolox --colour rgb "
        in str(caught.value)
    )
    assert "bgr" not in str(caught.value)


def test_a_model_of_the_catalogue_leaves_nothing_open(yolox_nano: Path) -> None:
    (reading,) = readings(yolox_nano, Options())

    assert reading.certain
    assert (reading.layout, reading.pixels) == ("yolox", PixelFacts("bgr", "255", "letterbox"))


@pytest.mark.parametrize(
    ("layout", "read_as", "resize"),
    [
        ("ultralytics", "ultralytics", "letterbox"),
        ("yolov5", "yolov5", "letterbox"),
        ("end-to-end", "end-to-end", "letterbox"),
        ("rt-detr-ultralytics", "rt-detr", "stretch"),
        ("rt-detr-ranked", "rt-detr", "stretch"),
    ],
)
def test_files_with_their_exporters_metadata_say_everything(
    yolox_nano: Path, tmp_path: Path, layout: str, read_as: str, resize: str
) -> None:
    file = _saved(LAYOUTS[layout](network.load(yolox_nano)), tmp_path / "best.onnx")
    source = read_source(file, Options())

    assert source.layout == read_as
    assert (source.pixels.colour, source.pixels.scale, source.pixels.resize) == ("rgb", "1", resize)
    assert len(source.labels) == 80


def test_where_two_layouts_fit_both_are_listed(tmp_path: Path) -> None:
    file = _saved(_answering({"output0": [1, 300, 6]}, ULTRALYTICS | TWO_NAMES), tmp_path / "two.onnx")

    with pytest.raises(SetupError) as caught:
        read_source(file, Options())
    assert (
        "give --layout end-to-end --colour rgb --scale 1 --resize letterbox, or "
        "--layout rt-detr --colour rgb --scale 1 --resize stretch, or" in str(caught.value)
    )
    assert read_source(file, Options(layout="rt-detr")).pixels.resize == "stretch"
    assert read_source(file, Options(layout="end-to-end")).pixels.resize == "letterbox"


def test_the_number_of_names_tells_layouts_apart(tmp_path: Path) -> None:
    names = {"names": "{0: 'cat', 1: 'dog', 2: 'cow'}"}
    file = _saved(_answering({"output0": [1, 300, 6]}, ULTRALYTICS | names), tmp_path / "three.onnx")

    assert read_source(file, Options()).layout == "end-to-end"


def test_boxes_within_one_are_no_pixels(tmp_path: Path) -> None:
    model = _answering({"output0": [1, 300, 6]}, ULTRALYTICS | TWO_NAMES, fill=0.5)

    assert read_source(_saved(model, tmp_path / "shares.onnx"), Options()).layout == "rt-detr"


def test_a_picture_of_bytes_says_what_white_is(yolox_nano: Path, tmp_path: Path) -> None:
    file = _saved(LAYOUTS["yolo-nas-uint8"](network.load(yolox_nano)), tmp_path / "nas.onnx")

    assert {reading.pixels.scale for reading in readings(file, Options())} == {"255"}


def test_baked_positions_keep_their_size(yolox_nano: Path, tmp_path: Path) -> None:
    file = _saved(LAYOUTS["rt-detr-original"](network.load(yolox_nano)), tmp_path / "detr.onnx")
    names = tmp_path / "names"
    names.write_text("\n".join(map(str, range(80))))
    options = Options(colour="rgb", scale="1", resize="stretch", labels=names)
    source = read_source(file, options)

    assert source.size(None) == source.size((416, 416)) == (416, 416)
    with pytest.raises(SetupError, match=r"cannot have 384x640: give --size 416x416, or leave --size out"):
        source.size((384, 640))
    with pytest.raises(SetupError, match="belong to pictures of 416x416"):
        graph.build(source.model, source.pixels, height=384, width=640, layout=source.layout)


def test_what_takes_any_size_is_asked_for_its_own_choice(yolox_nano: Path) -> None:
    source = read_source(yolox_nano, Options())

    assert source.size(None) == (384, 640)
    assert source.size((416, 416)) == (416, 416)


def test_the_right_reading_finds_most_on_a_photo(
    yolox_nano: Path, tmp_path: Path, dog: npt.NDArray[np.uint8]
) -> None:
    model = network.load(yolox_nano)
    helper.set_model_props(model, {"about": "not the file of the catalogue"})
    file = _saved(model, tmp_path / "unknown.onnx")
    ways = readings(file, Options(resize="letterbox"))
    evidence = weigh(file, ways, dog, size=(384, 640))

    assert len(ways) == 4
    assert not any(way.certain for way in ways)
    assert evidence[0].reading.pixels == PixelFacts("bgr", "255", "letterbox")
    assert evidence[0].boxes >= 3
    assert str(evidence[0]).startswith(
        "--layout yolox --colour bgr --scale 255 --resize letterbox (YOLOX since"
    )
    assert {each.boxes for each in evidence if each.reading.pixels.scale == "1"} == {0}


@pytest.mark.parametrize(
    ("shapes", "metadata", "sentence"),
    [
        pytest.param({"out": [1, 9, 3]}, {}, r"answers out \[N, 9, 3\] for pictures of 64x64", id="unknown"),
        pytest.param({"out": [25, 7]}, {}, "in one list .*BATCH_FORMAT", id="flat"),
        pytest.param(
            {"a": [1, 3, 8, 8, 8], "b": [1, 3, 4, 4, 8]}, {}, "not decoded: export it with its dec", id="maps"
        ),
        pytest.param(
            {"out": [1, 39, 84]}, {"task": "segment"}, "model for the task 'segment'", id="another task"
        ),
    ],
)
def test_what_is_no_detectors_answer_is_refused_with_what_to_do(
    tmp_path: Path, labels: Path, shapes: dict[str, list[int]], metadata: dict[str, str], sentence: str
) -> None:
    file = _saved(_answering(shapes, metadata, fill=2.0), tmp_path / "odd.onnx")

    with pytest.raises(SetupError, match=sentence):
        read_source(file, Options(labels=labels))


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("yolov99", r"--layout yolov99 is not known: give one of yolox, yolox-decoded, yolov5, ultra"),
        ("rt-detr", r"answers output \[N, 84, 8\], which is not the layout rt-detr: leave --layout out"),
    ],
)
def test_a_layout_that_is_none_or_another_is_refused(
    yolox: Path, labels: Path, layout: str, sentence: str
) -> None:
    with pytest.raises(SetupError, match=sentence):
        read_source(yolox, Options(layout=layout, labels=labels))


def test_suppression_that_only_tensorrt_knows_is_refused(tmp_path: Path) -> None:
    model = little_models.yolox(64, 64)
    model.graph.node.append(helper.make_node("EfficientNMS_TRT", ["output"], ["num"], domain="TRT"))
    model.opset_import.append(helper.make_opsetid("TRT", 1))

    with pytest.raises(SetupError, match="uses EfficientNMS_TRT, a plug-in of TensorRT that ONNX does not"):
        read_source(_saved(model, tmp_path / "plugin.onnx"), Options())
