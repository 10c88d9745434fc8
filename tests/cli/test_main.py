"""``ldp``: every command of its table is there, and its docstring is its help."""

from importlib import import_module
from inspect import cleandoc

import pytest
from finished import call

from pipeline.cli.main import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(f"ldp {name} --help").code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"usage: ldp {name} [-h]")
    actions = [other.split()[-1] for other in COMMANDS if other.startswith(f"{name} ")]
    assert set(actions) <= set(printed.split())
    if module := COMMANDS[name][0]:
        command = getattr(import_module(f"pipeline.cli.{module}"), f"{name.split()[-1]}_command")
        assert " ".join(cleandoc(command.run.__doc__).replace("``", "`").split()) in printed
