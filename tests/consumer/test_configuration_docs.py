"""What docs/configuration.md promises: that it says what the program does."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from consumer import settings
from consumer.configuration import render_markdown_table, with_current_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_table_in_the_document_is_the_codes() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_current_table(text), "run: python -m consumer.configuration docs/configuration.md"


def test_every_name_that_means_something_is_in_the_table_or_explained_by_it() -> None:
    table = render_markdown_table()
    for name, variable in settings.variables().items():
        assert f"\n| `{name}` | " in table
        assert all(f"`{alias}`" in table for alias in variable.aliases)
        assert variable.help in table


def test_the_table_is_a_table() -> None:
    lines = render_markdown_table().splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}


def test_the_command_in_the_markers_prints_and_writes_the_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "consumer.configuration"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == render_markdown_table() + "\n"
    copy = tmp_path / "configuration.md"
    copy.write_text(DOCUMENT.read_text(encoding="utf-8").replace("`QUEUE_NAME`", "`OLD`"), encoding="utf-8")
    subprocess.run([*command, str(copy)], check=True)
    assert copy.read_text(encoding="utf-8") == DOCUMENT.read_text(encoding="utf-8")


def test_the_example_of_a_file_holds_known_names_only() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    names = {name.upper() for name in yaml.safe_load(example)}
    assert names <= settings.known_names()
