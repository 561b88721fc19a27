"""The documents hold together: links lead somewhere, commands in them exist, every document can be found."""

import re
from pathlib import Path

import pytest

from strongroom.cli.main import build

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(
    r"(?:^|[\s$`(])strongroom "
    r"((?:repository|point|query|restore|testbed|vault|cluster|storage|policy|instance|job)(?: [a-z][a-z-]*)?)",
    re.MULTILINE,
)
APP = build()
GROUPS = {"repository", "point", "restore", "testbed", "vault", "cluster", "storage", "policy", "instance", "job"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    for words in COMMAND.findall(document.read_text()):
        group, _, command = words.partition(" ")
        if group in GROUPS and command:
            assert command in set(APP[group]), f"{document.name} speaks of `strongroom {words}`"


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in LINK.findall(index)}
    missing = [path for path in ROOT.glob("docs/**/*.md") if path.resolve() not in linked and path.name != "index.md"]
    assert not missing
