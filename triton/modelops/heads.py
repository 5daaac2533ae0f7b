"""Detector heads: which layout a network's answer is. Their decoding is in the modules beside this one."""

from consumer.errors import SetupError
from modelops.head import Answers, Head, Recognise
from modelops.heads_darknet import darknet
from modelops.heads_dense import ultralytics, yolo_nas, yolov5, yolox, yolox_decoded
from modelops.heads_final import end_to_end, rt_detr, yolo_nas_suppressed

RT_DETR = "rt-detr"
"""The one layout whose positions are baked in: it keeps its own size, and its pictures are stretched."""

LAYOUTS: dict[str, tuple[Recognise, ...]] = {
    "yolox": (yolox,),
    "yolox-decoded": (yolox_decoded,),
    "yolov5": (yolov5,),
    "ultralytics": (ultralytics,),
    "end-to-end": (end_to_end,),
    "yolo-nas": (yolo_nas, yolo_nas_suppressed),
    RT_DETR: (rt_detr,),
    "darknet": (darknet,),
}
"""How each layout is recognised, by its name for `--layout`."""

_SHAPES = (
    "yolox and yolox-decoded [N, cells, 5 + classes], yolov5 [N, 3 x cells, 5 + classes], "
    "ultralytics [N, 4 + classes, cells], end-to-end [N, rows, 6], yolo-nas [N, cells, 4] and "
    "[N, cells, classes], rt-detr [N, queries, 4 + classes], or boxes, scores and labels, or logits and "
    "pred_boxes"
)
_TASKS_WITHOUT_BOXES = ("segment", "pose", "obb", "classify", "semantic", "depth")


def fitting(answers: Answers, height: int, width: int, layout: str | None = None) -> list[Head]:
    """Every layout that the answers fit, decoded for height x width; `layout` asks for one alone.

    Raises:
        SetupError: none, or not the one asked for; says what the file answers.
    """
    _refuse_other_tasks(answers)
    if layout is not None and layout not in LAYOUTS:
        raise SetupError(f"--layout {layout} is not known: give one of {', '.join(LAYOUTS)}.")
    found = {
        name: next((head for head in (look(answers, height, width) for look in looks) if head), None)
        for name, looks in LAYOUTS.items()
    }
    if found["darknet"] is not None:
        found = {"darknet": found["darknet"]}
    heads = [head for name, head in found.items() if head is not None and layout in (None, name)]
    heads = [head for head in heads if _names_fit(head, answers)] or heads
    if len(heads) > 1 and answers.metadata.get("end2end") == "True":
        heads = [head for head in heads if head.layout == "end-to-end"]
    if heads:
        return heads
    if layout is not None:
        raise SetupError(f"The file answers {answers}, which is not the layout {layout}: leave --layout out.")
    if len(answers.outputs) == 1 and answers.outputs[0].dims == (7,):
        raise SetupError(
            "The file answers the boxes of all pictures in one list (flat format): export it with "
            "DetectionOutputFormatMode.BATCH_FORMAT, or without postprocessing."
        )
    if answers.outputs and all(len(output.dims) == 4 for output in answers.outputs):
        raise SetupError(
            f"The file answers {answers}, feature maps that are not decoded: export it with its decoding "
            "(YOLOv7: export.py --grid)."
        )
    raise SetupError(
        f"The file answers {answers} for pictures of {answers.height}x{answers.width}, which is none of the "
        f"known layouts: {_SHAPES}."
    )


def identify(answers: Answers, height: int, width: int, layout: str | None = None) -> Head:
    """Recognise the one layout that the answers fit; the decoding is for height x width.

    Raises:
        SetupError: none or several fit.
    """
    heads = fitting(answers, height, width, layout)
    if len(heads) > 1:
        choices = " or ".join(f"--layout {head.layout}" for head in heads)
        raise SetupError(f"The file answers {answers}, which fits more than one layout: give {choices}.")
    return heads[0]


def _names_fit(head: Head, answers: Answers) -> bool:
    return None in (head.classes, answers.classes) or head.classes == answers.classes


def _refuse_other_tasks(answers: Answers) -> None:
    task = answers.metadata.get("task")
    if task in _TASKS_WITHOUT_BOXES:
        raise SetupError(f"The file is a model for the task {task!r}: export a detector (task 'detect').")
