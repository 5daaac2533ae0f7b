"""Which of two states of a model holds: what a consumer knows must not go back while pods still differ."""

from consumer.contract import Contract, ModelVersion, Parameter, check_companion, newest
from consumer.rollout import Rollout

ONE, TWO = ModelVersion("1", ("person", "car"), "sha256:1"), ModelVersion("2", ("car",), "sha256:2")


def state(generation: int, live: int, *versions: ModelVersion) -> Contract:
    return Contract(
        model="yolo",
        height=384,
        width=640,
        max_detections=1000,
        max_batch_size=32,
        resize="letterbox",
        nms_in_graph=False,
        versions={each.version: each for each in versions},
        rollout=Rollout(generation, live),
    )


def test_the_higher_generation_holds_whichever_is_read_first() -> None:
    older, newer = state(4, 1, ONE, TWO), state(5, 2, ONE, TWO)
    assert newest(older, newer).rollout == newer.rollout
    assert newest(newer, older).rollout == newer.rollout
    assert newest(newest(newer, older), older).rollout == newer.rollout


def test_a_version_that_is_published_on_the_way_is_known_in_the_same_generation() -> None:
    before, after = state(4, 1, ONE), state(4, 1, ONE, TWO)
    assert newest(before, after).versions == after.versions
    assert newest(after, before).versions == after.versions, "an older pod does not make us forget labels"


def test_what_else_was_read_is_what_holds() -> None:
    wider = Contract(**{**vars(state(3, 1, ONE)), "width": 960})
    assert newest(state(4, 1, ONE), wider).width == 960


def test_another_repository_begins_anew() -> None:
    replaced = state(1, 1, ModelVersion("1", ("cat",), "sha256:other"))
    assert newest(state(9, 2, ONE, TWO), replaced) == replaced


def test_a_parameter_without_a_value_is_an_empty_one() -> None:
    """JSON made of protobuf leaves out what is empty."""
    rollout, versions = check_companion(
        "yolo",
        {
            "parameters": {
                Parameter.ROLLOUT: {"string_value": Rollout(1, 1).to_json()},
                Parameter.labels("1"): {"string_value": '["car"]'},
                Parameter.digest("1"): {},
            }
        },
    )
    assert (rollout.live, versions["1"].digest) == (1, "")
