"""``ldp``: every command of its table is there, its docstring is its help, and not all of them load torch."""

import subprocess
import sys
from importlib import import_module
from inspect import cleandoc

import pytest
from finished import call

from pipeline.cli.main import COMMANDS
from recipes import ROOT


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


def test_checking_a_recipe_loads_neither_torch_nor_zarr() -> None:
    modules = "pipeline.cli.main, pipeline.cli.params, pipeline.cli.recipe"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'zarr', 'dask', 'PIL'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
