"""A checkpoint of another schema version, so of other arithmetic, is never gone on from."""

from pathlib import Path

import pytest
from support.small import small

from cifar_lab.errors import UsageError
from cifar_lab.recipe import parse_recipe
from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.rundir.directory import RunDir


def test_what_was_saved_under_another_version_is_not_continued(tmp_path: Path) -> None:
    recipe, run = parse_recipe(small()), RunDir(tmp_path / "run")
    run.create(recipe)

    def locate() -> Path:
        return RunDir.locate(recipe, run_dir=str(run.path)).path

    run.write_env({"revision": "abc"})  # version 1 did not write its number
    run.write_status("stopped", 3, 10)
    assert locate() == run.path  # nothing was saved, so it begins at step 0
    run.checkpoints.mkdir()
    for env, named in (({"revision": "abc"}, "version 1"), ({"schema_version": 99, "revision": "abc"}, "version 99")):
        run.write_env(env)
        with pytest.raises(UsageError, match=rf"schema {named}.* --fresh .*\(revision abc\)") as caught:
            locate()
        assert "\n" not in str(caught.value)
    run.write_status("completed", 10, 10)
    assert locate() == run.path
    run.write_status("stopped", 3, 10)
    run.write_env({"schema_version": SCHEMA_VERSION})
    assert locate() == run.path
