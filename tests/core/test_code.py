"""Code that does the same has the same digest; code that does not has another."""

import yaml

from pipeline.core.code import PACKAGE, changed_code, code_digest, loaded_code, made_by
from pipeline.teacher.run import FOLDERS

SOURCE = """
'''What it is.'''
LIMIT = 3
def double(x):
    '''Twice.'''
    return 2 * x
"""


def test_what_is_computed_counts_and_comments_docstrings_and_layout_do_not() -> None:
    same = "LIMIT = 3  # at most\n\n\n# twice\ndef double(x):\n    return (2 * x)\n"
    assert code_digest(same) == code_digest(SOURCE)
    for old, new in (("3", "4"), ("2 *", "3 *"), ("(x)", "(x=1)"), ("double", "twice")):
        assert code_digest(SOURCE.replace(old, new)) != code_digest(SOURCE)


def test_the_folders_of_a_store_are_those_of_its_stage_and_each_module_of_them_counts() -> None:
    stage = yaml.safe_load((PACKAGE.parent / "dvc.yaml").read_text())["stages"]["cache_teacher"]
    deps = [dep for dep in stage["deps"] if dep.startswith("pipeline/")]
    assert sorted(f"pipeline/{folder}" for folder in FOLDERS) == sorted(deps)
    made = made_by(["codec"])
    modules = (PACKAGE / "codec").glob("*.py")
    assert list(made["code"]) == sorted(f"pipeline/codec/{path.name}" for path in modules)
    assert made["libraries"]["torch"]


def test_plumbing_and_what_only_one_run_has_loaded_are_left_out() -> None:
    code = loaded_code()
    assert not [name for name in code if name.startswith("pipeline/core")]
    assert "pipeline/teacher/run.py" in code
    assert code["torch"]
    assert changed_code({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["b"]
