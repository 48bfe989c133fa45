"""Every command has help that says what it does and how it can end, and none of them takes long to say so."""

from __future__ import annotations

import click
import pytest

from vcbproxy import errors
from vcbproxy.cli import frame
from vcbproxy.cli.main import program


def commands(group: click.Group, path: tuple[str, ...] = ()):
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield (*path, name), command
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))


ALL = list(commands(program))
LEAVES = [(path, command) for path, command in ALL if not isinstance(command, click.Group)]


@pytest.mark.parametrize(
    ("path", "command"), ALL, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_says_what_it_does(path, command):
    assert command.help
    assert len(command.help.splitlines()[0]) > 10
    with click.Context(command, info_name=" ".join(path)) as context:
        text = command.get_help(context)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.name} has no help"
    if not isinstance(command, click.Group):
        assert "Exit codes" in text


@pytest.mark.parametrize(
    ("path", "command"), LEAVES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_that_prints_data_has_json(path, command):
    if path[-1] in {"serve", "demo", "cat"}:
        pytest.skip("prints no table")
    assert "as_json" in {parameter.name for parameter in command.params}


def test_no_list_of_commands_breaks_off():
    for path, command in ALL:
        if isinstance(command, click.Group):
            with click.Context(command, info_name=" ".join(path)) as context:
                assert "...\n" not in command.get_help(context).partition("Options:")[2], path


def test_no_password_is_ever_an_argument():
    for path, command in LEAVES:
        for parameter in command.params:
            assert parameter.name not in {"password", "secret", "token"}, path


def error_classes(root: type[errors.Error] = errors.Error):
    yield root
    for child in root.__subclasses__():
        yield from error_classes(child)


def test_the_table_of_exit_codes_tells_the_truth():
    from tests.program import ROOT

    table: dict[int, set[str]] = {}
    for line in (ROOT / "docs" / "exit-codes.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1].isdigit():
            table.setdefault(int(cells[1]), set()).add(cells[2].strip("`"))
    assert set(table) == set(frame.EXIT_CODES)
    for cls in (*error_classes(), errors.Cancelled, errors.Terminated):
        if cls.__module__ == "vcbproxy.errors":
            assert cls.exit_code in table, cls
    for code, names in table.items():
        for name in names - {""}:
            assert getattr(errors, name).exit_code == code, name


def test_every_error_fits_on_one_line_and_keeps_its_facts():
    import pickle

    error = errors.DeviceError(device="sda", offset=7, length=3, reason="it is gone")
    assert str(error) == "sda: cannot read 3 bytes at offset 7: it is gone"
    assert error.offset == 7
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.device == "sda"
