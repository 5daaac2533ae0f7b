"""`vault-ml model ...` as an operator meets it: what is said, in tables and JSON, and the exit status."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consumer.errors import SettingsError, SetupError
from consumer.rollout import Candidate
from modelops.cli import app
from modelops.embedded import EmbeddedTriton
from modelops.ports import LOOPBACK, free_ports
from modelops.repository import Repository
from tests import clips
from tests.modelops.pods_of_one_repository import CAT, COW, DOG, addresses, publish, tritons

SECRET = "let-me-in"


class Operator:
    """Runs commands on a repository that a restricted Triton serves; its key is in a file."""

    def __init__(self, directory: Path, triton: EmbeddedTriton | None = None) -> None:
        self.repository = Repository.open(directory)
        key = directory.with_name("key")
        key.write_text(f"admin={SECRET}\n")
        self.environ = {"TRITON_ADMIN_KEY_FILE": str(key)}
        if triton is not None:
            self.environ["TRITON_URL"] = str(addresses([triton])[0])

    def __call__(self, *words: str, status: int = 0, **environ: str) -> str:
        """Run a command and return what it prints; its error, for one that ends with a sentence."""
        unset = {"QUEUE_NAME": None, "KAFKA_BROKER": None, "TRITON_URL": None}
        done = CliRunner().invoke(
            app,
            [*words, "--repository", self.repository.location],
            env={**unset, **self.environ, **environ},
        )
        if isinstance(
            done.exception, SetupError
        ):  # consumer.cli.main prints its sentence and exits with 1 or 2
            assert status == (2 if isinstance(done.exception, SettingsError) else 1)
            return str(done.exception)
        assert done.exit_code == status, (done.output, done.exception)
        assert SECRET not in done.output
        return done.stdout

    def json(self, *words: str, status: int = 0, **environ: str) -> Any:  # noqa: ANN401 - whatever it says
        return json.loads(self(*words, "--json", status=status, **environ))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, EmbeddedTriton]]:
    directory = tmp_path_factory.mktemp("operated") / "repository"
    directory.mkdir()
    restricted = f"--grpc-restricted-protocol=model-repository:admin={SECRET}"
    with tritons([directory], restricted) as servers:
        yield directory, servers[0]


@pytest.fixture
def operator(served: tuple[Path, EmbeddedTriton]) -> Operator:
    return Operator(*served)


@pytest.fixture
def shelf(tmp_path: Path) -> Operator:
    """A repository with five versions, and no Triton."""
    operator = Operator(tmp_path / "repository")
    publish(operator.repository, "yolo", CAT, DOG, COW, CAT, DOG)
    return operator


def test_a_model_is_rolled_out_by_commands(operator: Operator) -> None:
    publish(operator.repository, "way", CAT, DOG, COW)
    pod = operator.environ["TRITON_URL"]

    assert "Version 1 is live." in operator("load", "way")
    report = operator.json("canary", "way", "2", "--percent", "20")
    assert report["done"] is True
    assert report["pods"] == [
        {"pod": pod, "done": True, "detail": "version 2 tested (2 of 2 boxes), generation 2"}
    ]
    listed = operator.json("list")
    rows = [row for row in listed["versions"] if row["model"] == "way"]
    assert [(row["version"], row["state"], row["loaded_on"]) for row in rows] == [
        (1, "live", [pod]),
        (2, "canary 20 %", [pod]),
        (3, "shelf", []),
    ]
    assert listed["complete"] is True
    table = operator("list")
    assert "canary 20 %" in table
    assert pod in table

    assert "Version 2 is live; 1 stays loaded for a rollback." in operator("promote", "way")
    assert "Version 2 is in use (live): it stays loaded." in operator("unload", "way", "2", status=1)
    assert "Version 1 is live again" in operator("rollback", "way")
    assert operator("rollback", "way", status=1) == (
        "Version 1 is live and there is no previous one to go back to: "
        "go on with another one by `vault-ml model promote` (there are: 2, 3)."
    )
    shown = operator.json("show", "way", "2")
    assert [row["state"] for row in shown["versions"]] == ["withdrawn"]
    assert shown["rollout"]["live"] == 1


def test_without_the_key_nothing_is_done_and_the_variable_is_named(operator: Operator) -> None:
    publish(operator.repository, "locked", CAT, DOG)
    report = operator.json("load", "locked", status=1, TRITON_ADMIN_KEY_FILE="")
    assert report["done"] is False
    assert "set TRITON_ADMIN_KEY=admin=VALUE or TRITON_ADMIN_KEY_FILE" in report["sentence"]
    wrong = operator.json(
        "load", "locked", status=1, TRITON_ADMIN_KEY_FILE="", TRITON_ADMIN_KEY="admin=guessed"
    )
    assert "it refuses the one that was given" in wrong["sentence"]
    assert "guessed" not in json.dumps(wrong)


def test_a_pod_that_cannot_be_reached_is_reported_beside_those_that_can(operator: Operator) -> None:
    publish(operator.repository, "half", CAT, DOG)
    nobody = f"{LOOPBACK}:{free_ports(1)[0]}"
    both = f"{operator.environ['TRITON_URL']}, {nobody}"
    report = operator.json("shadow", "half", "2", status=1, TRITON_URL=both)
    assert [(pod["pod"], pod["done"]) for pod in report["pods"]] == [
        (operator.environ["TRITON_URL"], True),
        (nobody, False),
    ]
    assert operator.repository.served("half") == [1]
    listed = operator.json("list", status=1, TRITON_URL=both)
    assert any(remark.startswith(f"{nobody}: It does not answer") for remark in listed["remarks"])


def test_a_pod_that_lags_behind_the_disk_is_named(operator: Operator) -> None:
    publish(operator.repository, "behind", CAT, DOG)
    remarks = operator.json("show", "behind")["remarks"]
    pod = operator.environ["TRITON_URL"]
    assert remarks == [
        f"{pod} lacks version 1, which is in use: run `vault-ml model load behind`.",
        f"{pod} has another rollout than the one on disk: run `vault-ml model load behind`.",
    ]


def test_an_older_copy_of_the_companion_goes_out_as_a_newer_state(operator: Operator) -> None:
    """Consumers keep the highest generation that they have seen."""
    name = "restored"
    publish(operator.repository, name, CAT, DOG)
    companion = Path(operator.repository.location) / f"{name}-rollout" / "config.pbtxt"
    older = companion.read_bytes()
    operator("canary", name, "2", "--percent", "20")
    operator("rollback", name)
    companion.write_bytes(older)
    operator("load", name)
    shown = operator.json("show", name)
    assert shown["rollout"] == {
        "generation": 4, "live": 1, "previous": None, "candidate": None, "withdrawn": {},
    }  # fmt: skip
    assert shown["remarks"] == []


def test_a_damaged_companion_does_not_hide_the_other_models(shelf: Operator) -> None:
    publish(shelf.repository, "sound", CAT)
    companion = Path(shelf.repository.location) / "yolo-rollout" / "config.pbtxt"
    companion.write_bytes(companion.read_bytes()[:200])
    listed = shelf.json("list", status=1)
    assert [row["model"] for row in listed["versions"]] == ["sound"]
    assert any("does not say the rollout of a model" in remark for remark in listed["remarks"])
    assert "does not say the rollout of a model" in shelf("show", "yolo", status=1)


def test_a_damaged_journal_is_named_and_hides_nothing(shelf: Operator) -> None:
    shelf.repository.write_journal("yolo", b"{")
    listed = shelf.json("list")
    assert len(listed["versions"]) == 5
    assert ".journal-yolo.json on the shelf" in listed["remarks"][0]


def test_a_repository_without_a_model_is_said(tmp_path: Path) -> None:
    (remark,) = Operator(tmp_path / "elsewhere").json("list")["remarks"]
    assert remark.startswith("There is no model in ")


def test_a_version_that_is_not_there_is_not_promoted_by_agreement(operator: Operator) -> None:
    publish(operator.repository, "missing", CAT, DOG)
    said = operator("promote", "missing", "9", "--if-agreement", "0.9", status=1)
    assert said == "There is no version 9 of 'missing'; there are 1, 2."


def test_promotion_by_agreement_needs_to_know_the_topic(operator: Operator) -> None:
    publish(operator.repository, "agreed", CAT, DOG)
    said = operator("promote", "agreed", "2", "--if-agreement", "0.95", status=2)
    assert [problem.split()[0] for problem in said.splitlines()] == ["QUEUE_NAME", "KAFKA_BROKER"]
    assert operator.repository.companion("agreed").rollout.live == 1


def test_whoever_changes_something_says_which_triton(shelf: Operator) -> None:
    assert shelf("canary", "yolo", "2", "--percent", "20", status=1) == (
        "Say which Triton to change: --triton HOST:PORT or TRITON_URL, with its gRPC port (usually 8001)."
    )
    said = shelf("promote", "yolo", "2", "--triton", "http://triton:8000", status=1)
    assert said.startswith("'http://triton:8000' is no address of a Triton")


def test_what_is_on_disk_is_listed_without_a_triton(shelf: Operator) -> None:
    listed = shelf.json("list")
    assert [(row["version"], row["state"]) for row in listed["versions"]] == [
        (1, "live"), (2, "shelf"), (3, "shelf"), (4, "shelf"), (5, "shelf"),
    ]  # fmt: skip
    assert "(not asked)" in shelf("list")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show", "yolo", "9"], "There is no version 9 of 'yolo'; there are 1, 2, 3, 4, 5."),
        (["show", "other"], "other-rollout"),
        (["compare", "yolo"], "No version is on trial beside 1: say which two with --versions A,B."),
        (["compare", "yolo", "--versions", "1"], "--versions 1 will not do"),
        (["compare", "yolo", "--versions", "1,1"], "--versions 1,1 will not do"),
        (
            ["compare", "yolo", "--versions", "1,9"],
            "There is no version 9 of 'yolo'; there are 1, 2, 3, 4, 5.",
        ),
        (["compare", "yolo", "no-such.mp4", "--versions", "1,2"], "no-such.mp4 is no file"),
        (["compare", "yolo", "--versions", "1,2", "--within", "soon"], "--within soon will not do"),
    ],
)
def test_bad_input_is_one_sentence(shelf: Operator, words: list[str], sentence: str) -> None:
    assert sentence in shelf(*words, status=1)


def test_prune_keeps_the_newest_and_whatever_is_used(shelf: Operator) -> None:
    companion = shelf.repository.companion("yolo")
    trial = replace(companion.rollout, generation=2, candidate=Candidate(2, "shadow", 100))
    shelf.repository.write_companion("yolo", replace(companion, rollout=trial))
    assert shelf("prune", "yolo", "--keep", "1") == "Removed of yolo: 3, 4. Kept on the shelf: 5.\n"
    assert (shelf.repository.served("yolo"), shelf.repository.shelved("yolo")) == ([1], [2, 5])


def test_versions_on_the_shelf_are_compared_on_recordings_without_a_triton(
    shelf: Operator, tmp_path: Path
) -> None:
    clip, broken = clips.write(tmp_path / "clip.mp4"), tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    said = shelf.json("compare", "yolo", str(clip), str(broken), "--versions", "1,4", "--predictions", "2")
    assert (said["recordings"], said["failed"]) == (1, {"undecodable": 1})
    assert (said["frames"], said["matched"], said["agreement"]) == (2, 2, 1.0)  # version 4 is 1 once more
    assert said["labels"] == {"cat": [2, 2]}
    assert shelf.json("compare", "yolo", str(broken), "--versions", "1,4", status=1)["recordings"] == 0
    different = shelf("compare", "yolo", str(clip), "--versions", "1,2", "--predictions", "2")
    assert "1 recording, 2 frames." in different
    assert "boxes of dog" in different
