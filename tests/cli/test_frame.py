"""Where the repository, the password and the configuration come from, and how results and errors are printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import Program
from vcbproxy import config as configuration
from vcbproxy.cli import frame
from vcbproxy.errors import ConfigError, CredentialsError
from vcbproxy.units import GiB, MiB, align_down, align_up, human, parse_size


def test_the_configuration_names_all_that_is_wrong_at_once(tmp_path):
    file = tmp_path / "vcbproxy.toml"
    file.write_text('[manager]\nhost = "vc"\nusername = "u"\nport = 99999\npassword = "inline"\n[backups]\n')
    with pytest.raises(ConfigError) as caught:
        configuration.load(file)
    message = str(caught.value)
    for part in (str(file), "manager.port", "manager.password: no such key", "backups: no such key"):
        assert part in message
    assert "inline" not in message, "a secret that was written in by mistake is not printed"


def test_relative_paths_are_beside_the_file(tmp_path):
    file = tmp_path / "vcbproxy.toml"
    file.write_text('[repository]\nlocation = "repo"\npassword_file = "secret"\n[san]\nimages = [{ path = "a.img" }]\n')
    config = configuration.load(file)
    assert config.repository is not None
    assert config.repository.location == str(tmp_path / "repo")
    assert config.repository.password_file == tmp_path / "secret"
    assert config.san.images[0].path == tmp_path / "a.img"


def test_a_password_comes_from_a_file_a_command_or_a_credential(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("one two\r\nsecond line\n")
    assert configuration.Secret(password_file=tmp_path / "secret").password("it") == "one two"
    assert configuration.Secret(password_command="echo 'a b'").password("it") == "a b"
    assert configuration.Secret(password_command=["printf", "x"]).password("it") == "x"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert configuration.Secret(password_credential="secret").password("it") == "one two"


@pytest.mark.parametrize("command", ["false", "no-such-program-anywhere", "true", "'", ""])
def test_a_password_command_that_fails_is_told(command):
    with pytest.raises(CredentialsError):
        configuration.Secret(password_command=command).password("the repository")


def test_options_go_before_the_environment_and_that_before_the_configuration(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    for name in ("configured", "environment", "option"):
        Program()("repo", "init", "--repo", tmp_path / name, "--password-file", secret)
    file = tmp_path / "vcbproxy.toml"
    file.write_text('[repository]\nlocation = "missing"\npassword_file = "secret"\n')
    by_config = Program(file)
    assert str(tmp_path / "missing") in by_config("points", "list", code=10).err
    by_environment = Program(file, VCBPROXY_REPO=str(tmp_path / "environment"))
    by_environment("points", "list")
    by_environment("points", "list", "--repo", tmp_path / "nowhere", code=10)
    bare = Program(VCBPROXY_REPO=str(tmp_path / "option"), VCBPROXY_PASSWORD_FILE=str(secret))
    assert bare("points", "list", "--json").json == []
    Program(VCBPROXY_REPO=str(tmp_path / "option"))("points", "list", "--password-command", "echo s3cret")


def test_errors_are_one_line_or_one_object(tmp_path):
    run = Program()
    arguments = ("points", "list", "--repo", tmp_path / "nowhere", "--password-command", "echo x")
    plain = run(*arguments, code=10)
    assert plain.out == ""
    assert plain.err.count("\n") == 1
    told = json.loads(run(*arguments, "--json", code=10).err)
    assert told["error"] == "RepositoryMissing"
    assert told["exit_code"] == 10


def test_verify_of_nothing_is_not_ok(tmp_path):
    options = ("--repo", tmp_path / "repo", "--password-command", "echo x")
    Program()("repo", "init", *options)
    Program()("verify", *options, code=1)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("4096", 4096), ("64K", 65536), ("1.5GiB", 3 << 29), ("2 TB", 2 << 40), ("512b", 512)]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1X", "K", "1 2", "0x10"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(Exception, match="not a size"):
        parse_size(text)


def test_sizes_are_printed_and_aligned():
    assert human(0) == "0 B"
    assert human(1536) == "1.5 KiB"
    assert human(2 << 40) == "2.0 TiB"
    assert (align_down(4097, 4096), align_up(4097, 4096), align_up(4096, 4096)) == (4096, 8192, 4096)


def test_what_is_wrong_with_a_value_is_said_in_words(tmp_path):
    file = tmp_path / "vcbproxy.toml"
    file.write_text(
        """
        [backup]
        workers = "two"
        vms = "web01"
        [san]
        images = ["a.img"]
        [retention]
        keep_daily = -1
        keep_within = "3 days"
        """
    )
    with pytest.raises(ConfigError) as caught:
        configuration.load(file)
    assert str(caught.value).removeprefix(f"{file}: ").split("; ") == [
        "san.images.0: must be a table: { … }",
        "backup.workers: must be a whole number",
        "backup.vms: must be a list: [ … ]",
        "retention.keep_daily: must be greater than or equal to 0, or must be 'unlimited'",
        "retention.keep_within: is not written as docs/configuration.md shows",
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("false", "failed with exit code 1"),
        ("sh -c 'kill -9 $$'", "failed with signal 9"),
        ("no-such-program", "cannot be run: no-such-program: No such file or directory"),
        ("'", "is none: No closing quotation"),
    ],
)
def test_a_password_command_that_fails_is_told_in_words(command, said):
    with pytest.raises(CredentialsError, match=f"{said}$"):
        configuration.Secret(password_command=command).password("the repository")


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe\xfd\n", "no text in UTF-8"), (b"x" * 70_000, "too long"), (b"\xef\xbb\xbf\n", "empty")],
)
def test_what_is_no_password_file_is_told_in_words(tmp_path, content, said):
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(CredentialsError, match=said):
        configuration.Secret(password_file=tmp_path / "secret").password("it")
    with pytest.raises(CredentialsError, match="too long"):  # and has no end
        configuration.Secret(password_file=Path("/dev/zero")).password("it")


def test_the_mark_before_a_text_is_no_part_of_the_password(tmp_path):
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfsecret\r\n")
    assert configuration.Secret(password_file=tmp_path / "secret").password("it") == "secret"


def test_columns_stand_below_each_other_whatever_the_script(capsys):
    frame.emit([{"vm": "日本", "size": 1}, {"vm": "u\u0308ber", "size": 2}, {"vm": "plain", "size": 3}], as_json=False)
    assert capsys.readouterr().out == "VM     SIZE\n日本   1\nu\u0308ber   2\nplain  3\n"


def test_a_locale_without_the_signs_of_a_name_ends_in_no_traceback(tmp_path):
    spec = {
        "datastores": [{"name": "san6", "version": 6, "lun_size_bytes": GiB}],
        "vms": [{"name": "Büro 日本", "datastore": "san6", "disks": [{"size_bytes": MiB}]}],
    }
    (tmp_path / "lab.json").write_text(json.dumps(spec))
    plain = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def created(*options: str) -> str:
        create = ["lab", "create", str(tmp_path / "-".join(("lab", *options))), "--spec", str(tmp_path / "lab.json")]
        command = [sys.executable, "-m", "vcbproxy", *create, *options]
        return subprocess.run(command, env=plain, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout

    assert "B\\xfcro \\u65e5\\u672c" in created()
    assert json.loads(created("--json"))["vms"][0]["vm"] == "Büro 日本"


def test_a_closed_standard_output_is_told_in_one_line(tmp_path):
    (tmp_path / "secret").write_text("s3cret\n")
    arguments = ["repo", "init", "--repo", str(tmp_path / "repo"), "--password-file", str(tmp_path / "secret")]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "vcbproxy", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "vcbproxy: cannot write the result to standard output: it is closed\n",
    )
