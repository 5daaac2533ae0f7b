"""Reports cross between processes as JSON and come back as what they were."""

import json
from collections.abc import Iterator

import pytest

import consumer.vault  # its refinements of our errors are among the subclasses
from consumer import errors
from consumer.analysis import Analysis
from consumer.errors import Unforeseen, VaultMLError
from consumer.report import Costs, Report


def subclasses(kind: type[VaultMLError]) -> Iterator[type[VaultMLError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


KINDS = [
    kind
    for root in (errors.Outage, errors.RecordingError, errors.ContractError)
    for kind in (root, *subclasses(root))
    if kind is not errors.BrokerAway
]
"""What a worker may report."""


def test_modules_do_refine_our_errors() -> None:
    assert any(kind.__module__ != errors.__name__ for kind in KINDS), consumer.vault.__name__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_what_the_service_acts_on(kind: type[VaultMLError]) -> None:
    back = Report.from_json(Report(kind("what and what to do"), Costs({"download": 1.5}, 7)).to_json())
    assert isinstance(back.result, VaultMLError)
    assert issubclass(kind, type(back.result))
    assert type(back.result).__module__ == errors.__name__
    assert str(back.result) == "what and what to do"
    assert back.result.part == kind.part
    assert back.costs == Costs({"download": 1.5}, 7)


def test_an_analysis_comes_back_as_it_was() -> None:
    sent = Report(Analysis.skipped("zero_bytes"), Costs())
    assert Report.from_json(sent.to_json()) == sent


SOUND = json.loads(Report(Analysis.skipped("zero_bytes"), Costs()).to_json())
FAILED = json.loads(Report(Unforeseen("why"), Costs()).to_json())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("Segmentation fault", id="no JSON"),
        pytest.param("null", id="JSON without a report"),
        pytest.param("[" * 200_000, id="deeper than the parser goes"),
        pytest.param(json.dumps(FAILED | {"error": "Literal"}), id="no error class"),
        pytest.param(json.dumps(FAILED | {"error": {}}), id="no name"),
        pytest.param(json.dumps(FAILED | {"error": "ProducerFenced"}), id="an error of Kafka"),
        pytest.param(json.dumps(FAILED | {"error": "BrokerAway"}), id="an outage of Kafka"),
        pytest.param(json.dumps(FAILED | {"error": "SettingsError"}), id="an error of the settings"),
        pytest.param(json.dumps(FAILED | {"costs": {"seconds": 1}}), id="no costs"),
        pytest.param(json.dumps(SOUND | {"analysis": "{}"}), id="no analysis"),
    ],
)
def test_whatever_a_worker_answers_costs_its_recording_and_not_the_service(text: str) -> None:
    report = Report.from_json(text)
    assert isinstance(report.result, Unforeseen)
    assert str(report.result).startswith("A worker's answer is")
