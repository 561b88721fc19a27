"""The command line's frame: exit codes, errors for people and for scripts, nothing heavy at start."""

import json
import subprocess
import sys

import pytest
import yaml

from strongroom.cli.main import run
from strongroom.cli.options import duration_seconds, pairs, split_kind_name
from strongroom.cli.output import Facts, Format, Output, Table, emit, visible, wanted_format, yaml_text
from strongroom.cli.progress import Bar, Lines, Silent, progress
from strongroom.errors import ExitCode, UsageError


@pytest.mark.parametrize(
    "tokens",
    [
        ["pont"],
        ["point", "create", "--no-such-option"],
        ["point", "list", "--repository", "file:///nowhere", "--output", "xml"],
        ["repository", "init"],
        ["restore", "apply", "--repository", "memory://a", "--conflict", "overwrite"],
    ],
)
def test_a_wrong_command_line_exits_2_and_names_the_help(
    tokens: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRONGROOM_REPOSITORY", raising=False)
    assert run(tokens) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert "--help`" in printed.err
    assert "Traceback" not in printed.err


def test_with_json_a_usage_error_is_one_json_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["point", "list", "--repository", "memory://a", "--output", "json", "--nonsense"]) == ExitCode.USAGE
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["exitCode"] == 2
    assert "--nonsense" in error["message"]


def test_a_missing_repository_is_an_error_with_a_remedy_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    code = run(["point", "list", "--repository", f"file://{tmp_path}/none", "--output", "json"])
    error = json.loads(capsys.readouterr().err)["error"]
    assert code == error["exitCode"] == ExitCode.USAGE
    assert error["hint"]


def test_the_start_of_the_command_imports_nothing_heavy() -> None:
    heavy = ("pyarrow", "duckdb", "aiohttp", "obstore", "lightkube", "yaml", "azure", "dbos", "sqlalchemy")
    program = (
        f"import sys; from strongroom.cli.main import build; build();print([m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["point", "list", "-o", "json"], Format.JSON),
        (["point", "list", "--output=yaml"], Format.YAML),
        (["point", "list", "--output", "nonsense"], Format.TABLE),
        (["query", "--", "--output=json"], Format.TABLE),
        (["point", "list", "--output"], Format.TABLE),
    ],
)
def test_the_format_of_errors_is_known_before_the_command_line_is_parsed(tokens: list[str], expected: Format) -> None:
    assert wanted_format(tokens) is expected


NUMBERS = ["1", "1.0", "1e3", "+1", "-.5", ".5", "0x1F", "0o17", "010", "1_000", "0b1", ".inf", "-.INF", ".nan"]
DATES = ["12:30:45", "2026-11-23"]
WORDS = ["yes", "No", "on", "OFF", "y", "N", "true", "null", "~", "=", "<<", "nil", "None"]
AMBIGUOUS = [*NUMBERS, *DATES, *WORDS]


@pytest.mark.parametrize("text", [*AMBIGUOUS, "", " lead", "trail ", "a: b", "- a", "#c", "a #b", "%x", "@x", "'q'"])
def test_yaml_keeps_every_string_a_string(text: str) -> None:
    rendered = yaml_text({"value": text, text: "key"})
    assert yaml.safe_load(rendered) == {"value": text, text: "key"}
    if text in AMBIGUOUS:
        assert f'value: "{text}"' in rendered


@pytest.mark.parametrize(
    "text", ["a\nb\n", "a\n\n b", "\na", "  a\nb", "a \nb", "a\n\tb", "a\r\nb", "x\x1b[31m\ny", "a\n---\nb", "a\n\n\n"]
)
def test_yaml_brings_back_texts_of_several_lines(text: str) -> None:
    assert yaml.safe_load(yaml_text({"data": {"file": text}})) == {"data": {"file": text}}


def test_a_table_for_a_pipe_cuts_nothing_off_and_shows_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    long = "n" * 300
    emit(Output(), [], Table(("name", "reason"), [(long, "red \x1b[31m\u202ealert"), ("b", None)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "REASON"]
    assert lines[1].startswith(long)
    assert "\x1b" not in lines[1]
    assert r"\x1b[31m\u202ealert" in lines[1]


def test_quiet_prints_ids_only(capsys: pytest.CaptureFixture[str]) -> None:
    options = Output(quiet=True)
    emit(options, [], Table(("name",), [("a",)], ids=["a"], notes=["a note"]))
    emit(options, {}, Facts({"id": "b"}, ids=["b"], notes=["a note"]))
    printed = capsys.readouterr()
    assert printed.out == "a\nb\n"
    assert printed.err == ""


def test_progress_prints_a_line_for_each_phase_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as lines:
        lines.report("reading", 0, 10, "kinds")
        lines.report("reading", 5, 10, "kinds")
        lines.report("committing")
    assert capsys.readouterr().err.splitlines() == ["reading: 0 of 10 kinds", "committing"]


def test_quiet_has_no_progress() -> None:
    assert isinstance(progress(Output(quiet=True)), Silent)


def test_a_bar_keeps_its_finished_phases(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.report("reading", 1, 2, "kinds")
        bar.report("writing", 3, 3, "packs")
    assert "writing" in capsys.readouterr().err


def test_visible_leaves_ordinary_text_alone() -> None:
    assert visible("Grüße, 世界 – ok") == "Grüße, 世界 – ok"


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("90", 90)])
def test_durations(text: str, seconds: int) -> None:
    assert duration_seconds("--max-run", text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-5s", "5x", "s", "1.5h", "٣s"])
def test_a_wrong_duration_is_a_usage_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--max-run"):
        duration_seconds("--max-run", text)


@pytest.mark.parametrize("texts", [["a"], ["a="], ["=b"], ["a=b", "a=c"]])
def test_wrong_pairs_are_usage_errors(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--map-namespace"):
        pairs("--map-namespace", texts)


def test_the_target_of_cat_is_a_name_with_or_without_a_namespace() -> None:
    assert split_kind_name("ns/name") == ("ns", "name")
    assert split_kind_name("name") == ("", "name")
    for wrong in ("", "/", "a/", "/b", "a/b/c"):
        with pytest.raises(UsageError):
            split_kind_name(wrong)
