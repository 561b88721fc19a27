"""The test PostgreSQL: used, killed, started again with its data, gone without a trace."""

import contextlib
import os
import shutil
from pathlib import Path

import psycopg
import pytest

from strongroom.testbed import postgres as subject
from strongroom.testbed.postgres import NoPostgres, Postgres, postgres


def _killable(server: Postgres) -> Postgres:
    if not server.killable:
        pytest.skip("the server was named by its URL: it is not ours to kill")
    return server


def test_a_database_is_empty_new_and_gone_afterwards(postgres: Postgres) -> None:
    with postgres.database() as first, postgres.database() as second, psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE mark (id int)")
        connection.commit()
        with psycopg.connect(second) as other, pytest.raises(psycopg.errors.UndefinedTable):
            other.execute("SELECT * FROM mark")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


def test_a_killed_server_refuses_and_has_its_data_when_started_again(postgres: Postgres) -> None:
    server = _killable(postgres)
    with server.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE mark (id int)")
            connection.execute("INSERT INTO mark VALUES (7)")
            connection.commit()
            server.kill()
            try:
                with pytest.raises(psycopg.OperationalError):
                    psycopg.connect(url)
            finally:
                server.start()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM mark").fetchall() == [(7,)]


@pytest.mark.parametrize("killed", [False, True])
def test_a_server_leaves_nothing_behind(killed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(subject.URL_VARIABLE, raising=False)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(postgres())
        except NoPostgres as reason:
            pytest.skip(str(reason))
        folder = Path(psycopg.connect(server.url).info.host)
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        if killed:
            server.kill()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_wheel_serves_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(subject.URL_VARIABLE, raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(subject, "SYSTEM_FOLDERS", ())
    with postgres() as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_named_server_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(subject.URL_VARIABLE, "postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(NoPostgres, match=subject.URL_VARIABLE), postgres():
        pass
