"""Text from outside stays text: nothing in a recipe's name, an override, a folder or an option runs anything."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.commands import ROOT
from support.hostile import HEADER_OPTIONS, HEADER_TEXTS, TEXTS
from support.small import small
from support.submitting import made, run_recorded, sound, submit

NAMES = ("substitution", "backticks", "semicolon", "single quotes", "glob",
         "tilde", "history", "percent", "unicode", "control characters", "escaped quote")  # fmt: skip
BROKEN = [name for name, text in TEXTS.items() if "\n" in text or "\r" in text]
# What YAML does not take in a text; tried in the script itself.
NOT_IN_AN_OVERRIDE = ("control characters", "not UTF-8", "long")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[str]:
    """A path that must not exist afterwards, here or where it would be without a folder."""
    path = tmp_path / "canary"
    yield str(path)
    assert not path.exists()
    assert not list(tmp_path.rglob("*CANARY*")) and not (ROOT / "canary").exists()


def after_its_options(srun: list[bytes]) -> list[bytes]:
    """What srun was told to hand to launch/node.sh, without the run directory that ends it."""
    *words, option, run_dir = srun[srun.index(os.fsencode(ROOT / "launch" / "node.sh")) + 1 :]
    assert option == b"--run-dir" and run_dir.endswith(b"/records/run")
    return words


def handed_on(script: str, folder: Path, words: list[str]) -> None:
    """`words` reach launch/node.sh and every question about the run, byte for byte."""
    expected = [os.fsencode(word) for word in words]
    calls = run_recorded(script, folder)
    assert [after_its_options(call) for call in calls["srun"]] == [expected]
    assert len(calls["status"]) == 3
    for call in calls["status"]:
        assert call[: 3 + len(words)] == [b"-m", b"cifar_lab", b"status", *expected]


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in BROKEN])
def test_any_text_in_the_script(name: str, tmp_path: Path, canary: str) -> None:
    """As a recipe, an option's value, an override, a member of a sweep, the checkout and the python."""
    from sbatch_text import Array, body_of, sbatch_text

    text = TEXTS[name].replace("CANARY", canary)
    if "\n" in text or "\r" in text:
        pytest.skip("refused, see below")
    body = body_of((ROOT / "slurm" / "train.sbatch").read_text())
    words = [text, "--runs", text, f"key={text}", text]
    script = sbatch_text({"job-name": "x"}, str(ROOT), None, words, body)
    handed_on(script, tmp_path, words)
    sound(script, tmp_path)
    array = Array([["other"], words], [1], None)
    script = sbatch_text({"job-name": "x"}, str(ROOT), None, array, body)
    calls = run_recorded(script, tmp_path, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="17")
    assert [after_its_options(call) for call in calls["srun"]] == [[os.fsencode(word) for word in words]]
    head = sbatch_text({"job-name": "x"}, text, f"/{text}", ["x"], "")
    assert f"\ncd {shlex.quote(text)} || exit\nexport CIFAR_LAB_PYTHON={shlex.quote('/' + text)}\n" in head
    assert [line for line in script.splitlines() if line.startswith("#SBATCH")] == ["#SBATCH --job-name=x"]


def test_a_line_break_is_refused() -> None:
    """It could begin a line with `#SBATCH`, and Slurm takes no carriage return."""
    from sbatch_text import Array, sbatch_text
    from submit_options import SubmitError

    for text in map(TEXTS.__getitem__, BROKEN):
        for words in (["recipe", text], Array([["recipe"], [f"key={text}"]], [0, 1], None)):
            with pytest.raises(SubmitError, match="has a line break"):
                sbatch_text({}, str(ROOT), None, words, "")
        with pytest.raises(SubmitError, match="has a line break"):
            sbatch_text({}, f"/{text}", None, [], "")


def test_overrides_from_the_call_to_the_trainer(tmp_path: Path, canary: str) -> None:
    """All at once through submit.py, which has them checked by the real commands."""
    texts = {name: TEXTS[name].replace("CANARY", canary) for name in TEXTS if name not in NOT_IN_AN_OVERRIDE}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(small()))
    tags = [f"tracking.tags={json.dumps([text], ensure_ascii=False)}" for text in texts.values()]
    whole = [text.replace("'", "''") for name, text in texts.items() if text and name not in BROKEN]
    raw = [f"tracking.wandb_project='{text}'" for text in whole]
    assert len(tags) >= 30
    script = made(recipe, "--runs", tmp_path / "runs", *tags, *raw)
    handed_on(script, tmp_path, [str(recipe), "--nproc", "1", "--runs", str(tmp_path / "runs"), *tags, *raw])


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("empty", "long")])
def test_what_must_stand_before_python(name: str, tmp_path: Path, canary: str) -> None:
    """Modules, environments, images, and the names of folders and files; a line break or a leading dash is refused."""
    from environment import environment_lines
    from sbatch_text import body_of, sbatch_text
    from submit_options import parse

    text = TEXTS[name].replace("CANARY", canary)
    for option in ("--module", "--conda"):
        if name in BROKEN or text.startswith(("-", " ")):
            with pytest.raises(SystemExit):
                parse(["x.yaml", f"{option}={text}"])
    if name in BROKEN:
        for option in ("--venv", "--container", "--setup"):
            with pytest.raises(SystemExit):
                parse(["x.yaml", f"{option}={text}"])
        return
    folder = tmp_path / f"x{text}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "activate").write_text("")
    (folder / "lines").write_text("export OF_ONES_OWN=1")
    named = [] if text.startswith(("-", " ")) else [f"--module={text}", f"--module={text}"]
    body = body_of((ROOT / "slurm" / "train.sbatch").read_text())

    def calls(*words: str) -> dict[str, list[list[bytes]]]:
        lines = environment_lines(parse(["x.yaml", f"--setup={folder}/lines", *named, *words]), ROOT, [])
        script = sbatch_text({"job-name": "x"}, str(ROOT), None, ["recipe"], body, lines)
        sound(script, tmp_path)
        recorded = run_recorded(script, tmp_path, CONDA_PREFIX="/none")
        assert len(recorded["status"]) == 3
        assert recorded["module"] == ([[b"load", os.fsencode(text), os.fsencode(text)]] if named else [])
        return recorded

    if named:
        assert calls(f"--conda={text}")["conda"][1] == [b"activate", os.fsencode(text)]
    calls(f"--venv={folder}")
    mounts = os.fsencode(ROOT)
    recorded = calls(f"--container={folder}.sif")
    assert len(recorded["apptainer"]) == 3
    for call in recorded["apptainer"]:
        assert call[:5] == [b"exec", b"--nv", b"--bind", mounts, os.fsencode(f"{os.path.abspath(folder)}.sif")]
    (srun,) = recorded["srun"]
    assert srun[srun.index(b"exec") - 1].endswith(b"/apptainer") and srun[srun.index(b"exec") + 4] == call[4]
    sruns = calls(f"--container=y{text}")["srun"]
    assert len(sruns) == 4  # three of them ask for the status
    assert all(os.fsencode(f"--container-image=y{text}") in srun for srun in sruns)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_recipes_and_folders(name: str, tmp_path: Path, canary: str) -> None:
    text = TEXTS[name].replace("CANARY", "canary").replace("/", "_")
    recipe = tmp_path / f"-{text}.yaml"
    recipe.write_text(yaml.safe_dump(small()))
    script = made(f"--runs=-{text}", "--", recipe.name, cwd=tmp_path)
    handed_on(script, tmp_path, [str(recipe), "--nproc", "1", "--runs", str(tmp_path / f"-{text}")])


def test_a_leading_dash_inside_of_the_checkout(tmp_path: Path) -> None:
    from resources import from_checkout

    assert from_checkout(str(ROOT / "-x.yaml")) == "./-x.yaml"
    assert from_checkout(str(ROOT / "recipes" / "-x.yaml")) == "recipes/-x.yaml"
    assert from_checkout(str(ROOT)) == "."
    assert from_checkout(str(ROOT.parent / "-x")) == str(ROOT.parent / "-x")
    assert from_checkout(str(ROOT / "..x.yaml")) == "..x.yaml"


def test_values_of_a_sweep(tmp_path: Path, canary: str) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(small()))
    project = json.dumps("a,$(touch CANARY)\n`touch CANARY`; ) touch CANARY ;; esac 'x'").replace("CANARY", canary)
    sweep = ["--sweep", "seed=3,4", f"tracking.wandb_project={project}"]
    script = made(recipe, *sweep)
    sound(script, tmp_path)
    calls = run_recorded(script, tmp_path, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="17")
    assert after_its_options(calls["srun"][0])[-2:] == [b"seed=4", f"tracking.wandb_project={project}".encode()]
    said = submit(recipe, *sweep, "--member", "1")
    assert said.stdout.split(b"\0") == [b"seed=4", f"tracking.wandb_project={project}".encode(), b""]


@pytest.mark.parametrize("option", HEADER_OPTIONS)
def test_values_of_the_header_are_refused(option: str, canary: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process, since starting one for each of them would take minutes."""
    import submit as command

    for text in HEADER_TEXTS:
        value = text.replace("CANARY", canary)
        sweep = ["--sweep", "seed=0,1"] if option == "--max-parallel" else []
        with pytest.raises(SystemExit) as ended:
            command.main(["recipes/demo.yaml", f"{option}={value}", "--dry-run", *sweep])
        said = capsys.readouterr()
        assert ended.value.code == 2 and not said.out, (option, text)
        assert said.err.startswith("submit.py: ") and option in said.err and len(said.err.splitlines()) == 1


def test_what_the_header_allows() -> None:
    """The patterns are not so narrow that they refuse what sites use."""
    from submit_options import parse

    good = {
        "--job-name": ["a", "vit_tiny-1.0+x"],
        "--partition": ["gpu", "gpu,long", "a100-80.q"],
        "--account": ["my.lab-01"],
        "--constraint": ["a100", "a100&ib", "[rack1|rack2]", "(a|b)&c", "intel*2"],
        "--time": ["90", "1:30:00", "2-12", "2-12:00", "2-12:00:00"],
        "--mem": ["64G", "0", "4000", "1T"],
        "--gpus-per-node": ["4", "a100:4", "a100_3g.20gb:1"],
        "--dependency": ["afterany:12:13_4", "singleton"],
        **{"--exclude": ["node[1-3,7]"], "--reservation": ["my_res"], "--mail-user": ["me@lab.org"], "--nice": ["-5"]},
        **{"--comment": ["a=b"], "--licenses": ["x:2"], "--hint": ["nomultithread"], "--time-min": ["10"]},
        **{"--gres-flags": ["enforce-binding"], "--nodelist": ["node1"], "--mem-per-cpu": ["2G"], "--prefer": ["a"]},
    }  # fmt: skip
    for option, values in good.items():
        for value in values:
            parse(["x.yaml", f"{option}={value}"])
    assert parse(["x.yaml", "--exclusive", "--oversubscribe"]).others == {"exclusive": None, "oversubscribe": None}
