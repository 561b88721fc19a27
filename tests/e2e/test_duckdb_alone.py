"""An unencrypted repository is read with duckdb and the format document's own SQL, without any code of ours."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.testbed.cluster import Testbed

from .faults_stage import Stage, folder_stage

FORMAT = Path(__file__).parents[2] / "docs" / "format" / "repository.md"

# Runs alone (-I): no environment variable, no folder of ours on the path. It says itself that it used nothing of ours.
READER = """
import json, sys
import duckdb
rows = duckdb.sql(sys.stdin.read()).fetchall()
print(json.dumps({"rows": rows, "ours": [name for name in sys.modules if name.partition(".")[0] == "strongroom"]}))
"""


def documented_sql(part: int) -> str:
    """Return one of the SQL examples of the document's section on reading without Strongroom."""
    section = FORMAT.read_text().partition("## Reading a repository without Strongroom")[2]
    return re.findall(r"```sql\n(.*?)```", section, re.DOTALL)[part]


def read(sql: str, repository: Path, point: str = "") -> list[list[str]]:
    """Run a documented example over *repository* in an interpreter that knows nothing of Strongroom."""
    statement = sql.replace("REPOSITORY", str(repository)).replace("POINT", point)
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER], input=statement, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ours"] == []
    rows: list[list[str]] = answer["rows"]
    return rows


@pytest.fixture
def stage(testbed: Testbed, namespace: str, tmp_path: Path) -> Stage:
    stage = folder_stage(testbed, namespace, tmp_path)
    made = stage.ask("repository", "init", "--no-encryption")
    assert made.code == 0, made.err
    stage.set_up()
    return stage


def test_duckdb_alone_reads_secrets_and_one_exact_recovery_point(stage: Stage, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = stage.back_up()
    before = stage.live()
    stage.change(1)
    second = stage.back_up()
    after = stage.live()
    secrets = {name: json.loads(blob) for namespace, name, blob in read(documented_sql(0), repository)}
    assert base64.b64decode(secrets["token"]["data"]["password"]) == b"correct horse"
    for point, live in ((first, before), (second, after)):
        rows = read(documented_sql(1), repository, point)
        maps = {name: json.loads(blob)["data"] for namespace, name, blob in rows if namespace == stage.namespace}
        expected = {
            name.partition("/")[2]: item["data"] for name, item in live.items() if name.startswith("ConfigMap/")
        }
        assert maps == expected
        assert len(rows) == len(maps), "each object once"
    assert before["ConfigMap/changing"] != after["ConfigMap/changing"]
