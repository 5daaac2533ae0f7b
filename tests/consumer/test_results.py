"""Results look as the README's users know them, and say in headers what the value has no room for."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.analysis import Analysis, Detection, FrameResult
from consumer.events import MAX_KEY_BYTES, MAX_SOURCE_BYTES, RecordingEvent, parse_message
from consumer.messages import OutgoingMessage, Position
from consumer.results import (
    RECORD_OVERHEAD_BYTES,
    Header,
    build_result,
    frames_value,
    result_id,
    whole_pixels,
)
from tests.fakes.recorded_events import EVENT_2024, EVENT_2026, README_EVENT, README_RESULT, SECRETS, VERSIONS

MAX_BYTES = 1_000_012
POSITION = Position("source_topic", 2, 41, 0)
DIGEST = "sha256:" + "ab" * 32

ANALYSIS = Analysis(
    outcome="done",
    frames=(
        FrameResult(12, 0.48, (Detection("car", 0.5907418131828308, (298.2, 35.6, 398.4, 79.0)),)),
        FrameResult(36, 1.44, ()),
        FrameResult(60, 2.4, (Detection("truck", 0.7311708927154541, (513.7, 53.2, 656.4, 129.4)),)),
    ),
    width=1280,
    height=720,
    model_name="yolo",
    model_version="3",
    model_digest=DIGEST,
    ledger={"packets": 100, "decoded": 3},
)


def _event(raw: dict[str, Any]) -> RecordingEvent:
    (event,) = parse_message(json.dumps(raw).encode())
    assert isinstance(event, RecordingEvent)
    return event


def _value(message: OutgoingMessage) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(message.value)
    return value


def _headers(message: OutgoingMessage) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers}


def _shape(value: object) -> object:
    """Keys, nesting and types, without the values; a list is as its first entry."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value[:1]]
    return type(value)


def test_the_readmes_event_gives_exactly_the_readmes_result() -> None:
    value = _value(build_result(_event(README_EVENT), ANALYSIS, POSITION, MAX_BYTES))
    assert value == README_RESULT
    assert _shape(value) == _shape(README_RESULT)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_whole_event_is_echoed_without_its_credentials(version: str) -> None:
    raw = VERSIONS[version]
    message = build_result(_event(raw), ANALYSIS, POSITION, MAX_BYTES)
    assert set(_value(message)) == set(raw) | {"operation", "data"}
    assert not any(secret in message.value.decode() for secret in SECRETS)


def test_our_own_secrets_are_masked_in_what_is_echoed_but_the_recording_keeps_its_name() -> None:
    raw = json.loads(json.dumps(README_EVENT)) | {"note": {"who": ["Bearer our-own-secret"]}}
    raw["payload"]["key"] = key = "our-own-secret/a.mp4"
    for filling in ("", "x" * 20_000):
        raw["filling"] = filling
        secrets = ["our-own-secret"]
        value = _value(build_result(_event(raw), ANALYSIS, POSITION, 10_000, secrets=secrets))
        assert value["payload"].pop("key") == key
        assert "our-own-secret" not in json.dumps(value)
    secrets = ["payload", "metadata"]
    value = _value(build_result(_event(raw), ANALYSIS, POSITION, MAX_BYTES, secrets=secrets))
    assert value["source"] == README_EVENT["source"], "even a password that is a name of ours ends nothing"


@pytest.mark.parametrize(
    "name", ["Brenner Pass: north", "Gate <Pass>2", "u/token=1_a.mp4", "Bearer Northside"]
)
def test_names_of_cameras_files_and_providers_are_echoed_as_they_came(name: str) -> None:
    raw = json.loads(json.dumps(EVENT_2026)) | {"fileName": name, "source": name, "provider": name}
    raw["payload"] |= {"key": name, "deviceName": name, "signedUrl": None}
    raw["payload"]["metadata"]["event-instancename"] = name
    value = _value(build_result(_event(raw), ANALYSIS, POSITION, MAX_BYTES))
    assert [value[each] for each in ("fileName", "source", "provider")] == [name] * 3
    assert value["payload"] == {each: raw["payload"][each] for each in value["payload"]}


@pytest.mark.parametrize("source", ["our-own-secret", "storj", '"' * MAX_SOURCE_BYTES])
def test_a_reduced_event_names_its_recording_as_the_whole_one_does(source: str) -> None:
    raw = {**README_EVENT, "source": source, "payload": {"key": "https://u:hunter2XYZ9@h/x.mp4"}}
    values = []
    for filling in ("", "x" * 20_000):
        event = _event(raw | {"monitorStage": filling})
        message = build_result(event, ANALYSIS, POSITION, 10_000, secrets=["our-own-secret"])
        assert (Header.TRUNCATED in _headers(message)) == bool(filling)
        values.append(_value(message))
    whole, reduced = values
    assert (reduced["source"], reduced["payload"]) == (whole["source"], whole["payload"])
    assert whole["payload"]["key"] == "https://***@h/x.mp4"
    assert whole["source"] == ("***" if source == "our-own-secret" else source)


def test_what_readme_users_read_is_kept_though_it_sounds_secret() -> None:
    metadata = _value(build_result(_event(README_EVENT), ANALYSIS, POSITION, MAX_BYTES))["payload"][
        "metadata"
    ]
    assert metadata == README_EVENT["payload"]["metadata"]
    assert {"event-token", "publickey", "productid"} <= set(metadata)


def test_stage_state_is_echoed_and_cleaned() -> None:
    value = _value(build_result(_event(EVENT_2026), ANALYSIS, POSITION, MAX_BYTES))
    assert value["monitorStage"] == {"user": {"username": "youruser"}, "plans": {"basic": {"uploads": 100}}}
    assert "signedUrl" not in value["payload"]
    assert value["payload"]["bytes_range_on_time"] == EVENT_2026["payload"]["bytes_range_on_time"]


def test_results_are_merged_into_data_that_came_with_the_event() -> None:
    raw = {**EVENT_2024, "data": {**EVENT_2024["data"], "objectCount": 2, "labels": "replaced"}}
    data = _value(build_result(_event(raw), ANALYSIS, POSITION, MAX_BYTES))["data"]
    assert data == {**README_RESULT["data"], "objectCount": 2}


@pytest.mark.parametrize("data", [None, [], "text", 7])
def test_data_that_is_no_object_is_replaced(data: object) -> None:
    message = build_result(_event({**README_EVENT, "data": data}), ANALYSIS, POSITION, MAX_BYTES)
    assert _value(message)["data"] == README_RESULT["data"]


def test_a_skipped_recording_has_the_same_shape_with_empty_lists() -> None:
    message = build_result(_event(README_EVENT), Analysis.skipped("ondemand"), POSITION, MAX_BYTES)
    empty: dict[str, list[object]] = {"probabilities": [], "labels": [], "boxes": []}
    assert _value(message) == {**README_RESULT, "data": empty}
    headers = _headers(message)
    assert headers[Header.OUTCOME] == "skipped:ondemand"
    assert headers[Header.FRAMES] == "[]"
    assert Header.MODEL not in headers


def test_a_tombstone_has_a_result_too() -> None:
    (event,) = parse_message(None)
    assert isinstance(event, RecordingEvent)
    message = build_result(event, Analysis.skipped("tombstone"), POSITION, MAX_BYTES)
    assert _value(message)["operation"] == "classification"


def test_the_headers_say_what_the_value_has_no_room_for() -> None:
    analysis = Analysis(**{**vars(ANALYSIS), "outcome": "partial", "saturated_frames": (36,),
                           "partial_reasons": ("the file ends in the middle of a frame",)})  # fmt: skip
    message = build_result(_event(README_EVENT), analysis, POSITION, MAX_BYTES)
    assert _headers(message) == {
        "vault-ml-id": message.key.decode(),
        "vault-ml-source": "source_topic/2/41/0",
        "vault-ml-outcome": "partial",
        "vault-ml-model": "yolo/3",
        "vault-ml-digest": DIGEST,
        "vault-ml-frames": "[[12,480],[60,2400]]",
        "vault-ml-ledger": '{"packets":100,"decoded":3}',
        "vault-ml-reasons": '["the file ends in the middle of a frame"]',
        "vault-ml-saturated": "[36]",
    }


def test_the_frames_header_has_one_entry_for_each_entry_of_data() -> None:
    message = build_result(_event(README_EVENT), ANALYSIS, POSITION, MAX_BYTES)
    frames = json.loads(_headers(message)[Header.FRAMES])
    assert [len(frames)] * 3 == [len(entries) for entries in _value(message)["data"].values()]


def test_a_replay_has_the_same_id_wherever_it_stood() -> None:
    event = _event(README_EVENT)
    first = build_result(event, ANALYSIS, POSITION, MAX_BYTES)
    again = build_result(event, Analysis("done", model_digest=DIGEST), Position("other", 0, 0), MAX_BYTES)
    assert first.key == again.key
    assert len(first.key) == 64


def test_another_source_key_or_model_has_another_id() -> None:
    events = [RecordingEvent({}, "b", "a"), RecordingEvent({}, "a", "b"), RecordingEvent({}, "ab", "")]
    ids = {result_id(event, digest, POSITION) for event in events for digest in ("", "x")}
    assert len(ids) == 6
    nameless = RecordingEvent({}, "")
    assert result_id(nameless, "", POSITION) != result_id(nameless, "", Position("source_topic", 2, 42))


@pytest.mark.parametrize(
    ("box", "whole"),
    [
        ((298.2, 35.6, 398.4, 79.0), [298, 36, 398, 79]),
        ((-4.0, -0.4, 1300.0, 720.4), [0, 0, 1280, 720]),
        ((10.1, 10.1, 10.3, 10.4), [10, 10, 11, 11]),
        ((1279.9, 719.9, 1280.0, 720.0), [1279, 719, 1280, 720]),
        ((1290.0, 730.0, 1300.0, 740.0), [1279, 719, 1280, 720]),
        ((-9.0, -9.0, -5.0, -5.0), [0, 0, 1, 1]),
    ],
    ids=["rounded", "clipped", "thin", "corner", "outside", "before"],
)
def test_boxes_are_whole_pixels_inside_the_picture(
    box: tuple[float, float, float, float], whole: list[int]
) -> None:
    assert whole_pixels(box, 1280, 720) == whole


coordinate = st.floats(-1e6, 1e6)


@given(st.tuples(coordinate, coordinate, coordinate, coordinate), st.integers(1, 8192), st.integers(1, 8192))
def test_no_box_turns_inside_out_or_leaves_the_picture(
    box: tuple[float, float, float, float], width: int, height: int
) -> None:
    x1, y1, x2, y2 = whole_pixels(box, width, height)
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height


def test_a_frame_of_another_size_is_clipped_to_its_own_picture() -> None:
    frame = FrameResult(0, 0.0, (Detection("car", 0.9, (0.0, 0.0, 5000.0, 5000.0)),), width=1920, height=1080)
    analysis = Analysis("done", (frame,), width=640, height=480)
    message = build_result(_event(README_EVENT), analysis, POSITION, MAX_BYTES)
    assert _value(message)["data"]["boxes"] == [[[0, 0, 1920, 1080]]]


def _crowd(frames: int, each: int) -> Analysis:
    return Analysis(
        "done",
        tuple(
            FrameResult(
                index,
                index / 25,
                tuple(
                    Detection("person", 1 - (n * frames + index) / (frames * each), (n, n, n + 9.5, n + 9.5))
                    for n in range(each)
                ),
            )
            for index in range(frames)
        ),
        width=1280,
        height=720,
        model_name="yolo",
        model_version="3",
        model_digest=DIGEST,
    )


def test_a_result_that_is_too_large_keeps_the_best_detections_and_says_so() -> None:
    limit = 50_000
    message = build_result(_event(README_EVENT), _crowd(40, 100), POSITION, limit)
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= limit
    assert message.size_bytes > limit * 0.9
    scores = [score for frame in _value(message)["data"]["probabilities"] for score in frame]
    truncated = json.loads(_headers(message)[Header.TRUNCATED])
    assert truncated == {"detections": len(scores), "of": 4000, "event": "whole"}
    assert min(scores) == pytest.approx(1 - (len(scores) - 1) / 4000)


def test_a_result_that_fits_says_nothing_of_truncation() -> None:
    message = build_result(_event(README_EVENT), _crowd(40, 100), POSITION, 10_000_000)
    assert Header.TRUNCATED not in _headers(message)


def test_among_equal_scores_exactly_as_many_stay_as_fit() -> None:
    frames = tuple(FrameResult(i, i / 25, (Detection("car", 0.5, (1, 1, 9, 9)),) * 50) for i in range(40))
    message = build_result(_event(README_EVENT), Analysis("done", frames), POSITION, 40_000)
    kept = json.loads(_headers(message)[Header.TRUNCATED])["detections"]
    assert 0 < kept < 2000
    assert sum(map(len, _value(message)["data"]["labels"])) == kept


def test_an_event_that_is_too_large_is_echoed_with_the_readmes_names() -> None:
    raw = {**README_EVENT, "monitorStage": {"plans": "x" * 60_000}}
    message = build_result(_event(raw), ANALYSIS, POSITION, 40_000)
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= 40_000
    value = _value(message)
    assert set(value) == {"date", "events", "provider", "source", "request", "payload", "operation", "data"}
    assert value["payload"] == {"key": README_EVENT["payload"]["key"]}
    assert value["data"] == README_RESULT["data"]
    assert json.loads(_headers(message)[Header.TRUNCATED])["event"] == "reduced"


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=500).filter(
        lambda key: key == key.strip()
    ),
    st.integers(0, 30),
    st.integers(0, 40_000),
)
@example('"' * MAX_KEY_BYTES, 30, 0)
@example("\N{PERSONAL COMPUTER}" * (MAX_KEY_BYTES // 4), 30, 40_000)
def test_no_result_is_larger_than_the_smallest_limit_allows(key: str, frames: int, bulk: int) -> None:
    raw = {
        "payload": {"key": key},
        "x": "x" * bulk,
        "data": {"y": "y" * bulk},
        "source": '"' * MAX_SOURCE_BYTES,
    }
    analysis = Analysis(
        **{
            **vars(_crowd(frames, 20)),
            "partial_reasons": ('"' * 500,) * 500,
            "saturated_frames": (99_999,) * 9999,
        }
    )
    message = build_result(_event(raw), analysis, POSITION, 10_000)
    assert message.size_bytes + RECORD_OVERHEAD_BYTES <= 10_000


def test_names_that_are_not_utf8_come_as_json_has_them() -> None:
    event = RecordingEvent({"payload": {"key": "clip\udce9.mp4"}}, "clip\udce9.mp4")
    assert b"clip\\udce9.mp4" in build_result(event, ANALYSIS, POSITION, MAX_BYTES).value


def test_the_frames_format_lists_every_frame_with_boxes_as_floats() -> None:
    assert frames_value("clip.mp4", ANALYSIS) == {
        "recording": "clip.mp4",
        "model": {"name": "yolo", "version": "3"},
        "frames": [
            {"index": 12, "time": 0.48, "detections": [
                {"label": "car", "score": 0.5907418131828308, "box": [298.2, 35.6, 398.4, 79.0]}]},
            {"index": 36, "time": 1.44, "detections": []},
            {"index": 60, "time": 2.4, "detections": [
                {"label": "truck", "score": 0.7311708927154541, "box": [513.7, 53.2, 656.4, 129.4]}]},
        ],
        "ledger": {"packets": 100, "decoded": 3},
    }  # fmt: skip


finite = st.floats(allow_nan=False, allow_infinity=False)
analyses = st.builds(
    Analysis,
    outcome=st.sampled_from(["done", "partial", "skipped:ondemand"]),
    frames=st.lists(
        st.builds(
            FrameResult,
            index=st.integers(0),
            time_seconds=finite,
            detections=st.lists(
                st.builds(Detection, st.text(), finite, st.tuples(finite, finite, finite, finite)), max_size=3
            ).map(tuple),
            width=st.none() | st.integers(1),
            height=st.none() | st.integers(1),
        ),
        max_size=3,
    ).map(tuple),
    width=st.integers(0),
    height=st.integers(0),
    model_name=st.text(),
    ledger=st.none() | st.dictionaries(st.text(), st.integers()),
    saturated_frames=st.lists(st.integers()).map(tuple),
    partial_reasons=st.lists(st.text()).map(tuple),
)


@given(analyses)
def test_an_analysis_comes_whole_through_json(analysis: Analysis) -> None:
    assert Analysis.from_json(analysis.to_json()) == analysis
