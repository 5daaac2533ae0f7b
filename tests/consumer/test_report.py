"""Reports cross between processes as JSON and come back as what they were."""

from collections.abc import Iterator

import pytest

import consumer.vault  # its refinements of our errors are among the subclasses
from consumer import errors
from consumer.analysis import Analysis
from consumer.errors import SettingsError, VaultMLError
from consumer.report import Costs, Report


def subclasses(kind: type[VaultMLError]) -> Iterator[type[VaultMLError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


KINDS = [kind for kind in subclasses(VaultMLError) if kind is not SettingsError]


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
