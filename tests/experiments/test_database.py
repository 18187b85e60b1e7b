"""What is shown of a database's URL, and what the command line may carry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catuvac.config import Config, ConfigError
from catuvac.errors import CatuvacError
from catuvac.experiments import database, options
from catuvac.experiments.search import Arm, Search
from catuvac.experiments.trial_queue import STORAGE_VARIABLE, TrialQueue

# However it is typed, W0rd is a part of the password. Nothing listens at port 1.
URLS = [
    "postgresql+psycopg://u:plainW0rd@127.0.0.1:1/x",
    "postgresql+psycopg://u:p%40ssW0rd@127.0.0.1:1/x",
    "postgresql+psycopg://u:p%2FssW0rd%3A@127.0.0.1:1/x",
    "postgresql+psycopg://127.0.0.1:1/x?user=u&password=queryW0rd",
    "postgresql+psycopg://127.0.0.1:1/x?user=u&password=query%40W0rd",
    "postgresql+psycopg://u:p@ssW0rd@127.0.0.1:1/x",
    "postgresql+psycopg://u:p/ssW0rd@127.0.0.1:1/x",
    "postgresql+psycopg://u:p@ss/W0rd@127.0.0.1:1/x",
    "postgresql+psycopg://u:p@ssW0rd:1/x@127.0.0.1",
    "postgresql+psycopg://u:W0rd:127.0.0.1/x",
    "postgresql+psycopg://127.0.0.1:W0rd/x",
    "postgresql+psycopg:/u:W0rd@127.0.0.1:1/x",
    "postgresql+psycopg//u:W0rd@127.0.0.1:1/x",
    "postgresql+psycopg:u:W0rd@127.0.0.1:1/x",
    "postgresql+nodriver://u:W0rd@127.0.0.1:1/x",
    "postgresql+psycopg://127.0.0.1:1/x;password=W0rd",
    "postgresql+psycopg://127.0.0.1:1/x&password=W0rd",
    "postgresql+psycopg://u%3AW0rd@127.0.0.1:1/x",
    "postgresql+psycopg://127.0.0.1:1/x?sslpassword=W0rd",
    "sqlite://u:W0rd@127.0.0.1/x",
    "sqlite:///postgresql://u:W0rd@127.0.0.1/x",
    "u:W0rd@127.0.0.1/x",
]


@pytest.mark.parametrize("url", URLS)
def test_no_message_and_no_file_holds_a_password(
    url: str, tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("qmc", 4),))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(STORAGE_VARIABLE, url)
    with pytest.raises(CatuvacError, match="cannot use the Optuna storage") as caught:
        TrialQueue.create(made)
    assert "W0rd" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", URLS)
def test_the_command_line_takes_no_password_and_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"\$CATUVAC_OPTUNA_STORAGE") as caught:
        options.database(url)
    assert "W0rd" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql+psycopg://db.example/optuna",
        "postgresql+psycopg://me@db.example:5432/optuna?sslmode=require",
        "postgresql+psycopg:///optuna?host=/run/postgresql",
        "mysql+pymysql://[::1]/optuna",
        "sqlite:////a folder/x-[1].db",
    ],
)
def test_the_command_line_takes_what_holds_none(url: str) -> None:
    assert options.database(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:secret@db.example:5432/optuna", "postgresql database optuna on db.example"),
        ("postgresql+psycopg:///optuna?host=/run/postgresql", "postgresql database optuna"),
        ("mysql://me:secret@[::1]/optuna", "mysql database optuna on ::1"),
        ("sqlite:////a/x.db", "sqlite database /a/x.db"),
        ("sqlite://", "sqlite database in memory"),
    ],
)
def test_a_database_is_named_by_kind_name_and_host(url: str, shown: str) -> None:
    assert database.describe(url) == shown


def test_a_short_password_is_hidden_as_a_word_alone() -> None:
    error = RuntimeError("connection of u refused: u, p")
    assert database.reason("postgresql://u:p@127.0.0.1/x", error) == "connection of *** refused: ***, ***"


def test_reading_makes_no_database(tmp_path: Path, tiny_config: Config) -> None:
    with pytest.raises(ConfigError, match="there is no sqlite database"):
        database.check_exists(f"sqlite:///{tmp_path}/x.db")
    assert not list(tmp_path.iterdir())
    made = Search(name="a", storage=tmp_path, config=tiny_config, arms=(Arm("qmc", 4),))
    TrialQueue.create(replace(made, optuna_url=f"sqlite:///{tmp_path}/x.db"))
    database.check_exists(f"sqlite:///{tmp_path}/x.db")
