"""The list of recipes, one of them, two compared, and a new one."""

import json
import re
import shutil

import pytest
import yaml
from support.commands import PYTHON, ROOT, completed
from support.saved_runs import RECIPES, saved_run

from cifar_lab.commands import recipes
from cifar_lab.recipe import experiment_id, load_recipe
from cifar_lab.recipe.book import expected, header
from cifar_lab.recipe.named import list_recipes


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder that has recipes/ of its own: two good ones, one of them in a folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    (folder / "strong").mkdir(parents=True)
    comment = "# yaml-language-server: $schema=schema.json\n# Small.\n#   a command\n"
    comment += "# Expect: 12.5 % in\n# no time.\n# More.\n"
    for path, name in ((folder / "own.yaml", "vit"), (folder / "strong" / "net.yaml", "net")):
        path.write_text(comment + yaml.safe_dump(RECIPES[name], sort_keys=False))
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / "seeds.yaml").write_text("program: x\n")
    return folder


def told(capsys, *arguments):
    assert recipes.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_shipped_recipe_is_listed_and_says_what_to_expect(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    listed = {one["recipe"]: one for one in told(capsys)["recipes"]}
    files = [path for path in (ROOT / "recipes").rglob("*.yaml") if path.parent.name != "sweeps"]
    assert len(listed) == len(files) > 10
    assert {"demo", "strong/eva02_large"} <= set(listed)
    assert all(one["expected"] for one in listed.values())
    assert listed["demo"]["expected"].startswith("test error 19.7 % (accuracy 80.3 %)")
    assert listed["vit_tiny"]["model"] == "vit_tiny_patch16_224"


def test_the_list_imports_nothing_large(tmp_path):
    for name in ("torch", "accelerate", "datasets", "scipy", "matplotlib"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    command = [PYTHON, "-m", "cifar_lab", "recipes"]
    done = completed(command, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("recipe ")


def test_cost_is_measured_when_asked_for_and_kept(book, capsys):
    before = {one["recipe"]: one for one in told(capsys)["recipes"]}
    assert before["own"]["seconds"] is None
    shutil.rmtree(book / "strong")
    (measured,) = told(capsys, "ls", "--cost")["recipes"]
    assert measured["num_parameters"] == saved_run("vit").summary()["num_parameters"]
    assert 0 < measured["seconds"] < 60
    (kept,) = told(capsys)["recipes"]
    assert kept == measured
    (slower,) = told(capsys, "--gpu", "v100-16gb")["recipes"]
    assert slower["seconds"] > kept["seconds"]


def test_measured_is_of_runs_of_exactly_that_recipe(book, tmp_path, capsys):
    recipe = load_recipe(book / "own.yaml")
    runs = tmp_path / "runs" / "own"
    accuracy = saved_run("vit").summary()["test"]["accuracy"]
    shutil.copytree(saved_run("vit").path, runs / f"0-{experiment_id(recipe)}")
    for name, value in (("1-ID", 0.5), ("1-ID.2", 0.75), ("2-ID", None), ("3-00000000", 0.99), ("notes", 0.99)):
        folder = runs / name.replace("ID", experiment_id(recipe))
        folder.mkdir()
        if value is not None:
            (folder / "summary.json").write_text(json.dumps({"test": {"accuracy": value}}))
    (runs / f"4-{experiment_id(recipe)}").mkdir()
    (runs / f"4-{experiment_id(recipe)}" / "summary.json").write_text("{torn")
    listed = {one["recipe"]: one["measured"] for one in told(capsys)["recipes"]}
    assert listed == {"own": [accuracy, 0.75], "strong/net": []}
    assert recipes.main([]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("own "))
    error = f"{100 * (1 - (accuracy + 0.75) / 2):.2f}"
    assert re.search(rf"vit +.*4 epochs .* {error} ± [\d.]+ % \(n=2\)  12.5 % in no time$", line), line


def test_a_broken_recipe_is_named_and_the_others_listed(book, capsys):
    (book / "broken.yaml").write_text("name: [\n")
    (book / "binary.yaml").write_bytes(b"\xff\x00")
    assert recipes.main(["ls"]) == 1
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.split("\n\n")[0].splitlines()] == ["recipe", "own", "strong/net"]
    assert len(output.err.splitlines()) == 2 and "broken.yaml:2" in output.err


def test_show_tells_values_and_where_they_come_from(book, capsys):
    assert recipes.main(["show", "strong/net", "optim.lr=0.5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("recipes/strong/net.yaml\n  Small.\n    a command\n  Expect: 12.5 % in\n")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and line[0] != " "}
    assert rows["optim.lr"] == ["0.5", "override"]
    assert rows["optim.nesterov"] == ["false", "default"]
    assert rows["model.args.arch"][0] == "test_efficientnet"
    assert rows["model.args.arch"][1].startswith("recipes/strong/net.yaml:")


def test_diff_has_the_differing_fields_only(book, capsys):
    assert recipes.main(["diff", "own", str(saved_run("net").path)]) == 0
    found = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert found["model.name"] == ["vit", "timm_zoo"]
    assert found["model.args.width"] == ["32", "-"]
    assert found["train.precision"] == ["fp32", "bf16"]
    assert "optim.name" not in found and "data.val_size" not in found
    assert recipes.main(["diff", "own", "recipes/own.yaml"]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert recipes.main(["diff", "own", "strong/net"]) == 0
    assert re.search(r"^model.args.width +32 +-$", capsys.readouterr().out, re.MULTILINE)


def test_a_new_recipe_loads_and_explains_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert recipes.main(["new", "mine.yaml"]) == 0
    recipe, text = load_recipe("mine.yaml"), (tmp_path / "mine.yaml").read_text()
    assert (recipe.name, recipe.model.name, recipe.train.epochs) == ("mine", "resnet", 30)
    for line in text.splitlines():
        assert len(line) <= 120
    schema = re.search(r"\$schema=(\S+)", text)[1]
    assert (tmp_path / schema).resolve() == ROOT / "recipes" / "schema.json"
    assert expected(tmp_path / "mine.yaml") == "not measured" and len(header(tmp_path / "mine.yaml")) == 5
    assert recipes.main(["new", "mine.yaml"]) == 2
    assert "mine.yaml exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.yaml").read_text() == text


def test_a_copy_is_one_s_own_and_never_written_over(tmp_path, monkeypatch, capsys):
    """A recipe with what its editor line names; `all` with the files that the commands in recipes name."""
    monkeypatch.chdir(tmp_path)
    assert recipes.main(["copy", "strong/vit", "mine"]) == 0
    assert capsys.readouterr().out == "mine/recipes/strong/vit.yaml\nmine/recipes/schema.json\n"
    own = tmp_path / "mine" / "recipes" / "strong" / "vit.yaml"
    schema = re.search(r"\$schema=(\S+)", own.read_text())[1]
    assert (own.parent / schema).resolve() == tmp_path / "mine" / "recipes" / "schema.json"
    own.write_text("changed")
    assert recipes.main(["copy", "all", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "already" in line] == [
        f"mine/recipes/{name}: is there already, left as it is" for name in ("strong/vit.yaml", "schema.json")
    ]
    assert own.read_text() == "changed"
    for folder in ("recipes", "accelerate_configs"):
        for file in (ROOT / folder).rglob("*.yaml"):
            copied = tmp_path / "mine" / file.relative_to(ROOT)
            assert copied == own or copied.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "mine.txt"], "that ends with .yaml"),
        (["new", ".yaml"], "that ends with .yaml"),
        (["new", "no/mine.yaml"], "cannot write no/mine.yaml: No such file"),
        (["new", "my recipe.yaml"], "'my recipe.yaml': name a file of letters"),
        (["new", "a\nname.yaml"], "'a\\nname.yaml': name a file of letters"),
        (["new", "link.yaml"], "link.yaml exists already"),
        (["new", "x" * 300 + ".yaml"], "File name too long"),
        (["show", "x" * 300], "no such file"),
        (["show", "owm"], "owm: no such file (did you mean `own`?)"),
        (["show", "gone.yaml"], "gone.yaml: no such file"),
        (["show", "recipes"], "recipes: is a directory; name a recipe file"),
        (["show", "own", "optim.lrr=1"], "optim.lrr"),
        (["diff", "own", "zzz"], "zzz: no such file; `cifar-lab recipes` lists"),
        (["diff", "own", "torn.yaml"], "torn.yaml:1"),
        (["ls", "--recipes", "nowhere"], "there is no folder nowhere"),
        (["ls", "--gpu", "h999"], "h999"),
        (
            ["diff", "own"],
            "diff takes other names: ls none, show RECIPE [key=value ...], copy [NAME|all] [DIR], diff A B, new FILE",
        ),
        (["new", "a.yaml", "b.yaml"], "new takes other names: ls none"),
        (["copy", "demi"], "demi: came not with cifar-lab; it is `all`, or one of demo, eva02_large,"),
        (["copy", "demo", "a", "b"], "copy takes other names"),
    ],
)
def test_wrong_use_is_named(book, tmp_path, capsys, arguments, message):
    (tmp_path / "torn.yaml").write_bytes(b"\x00\x01")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    assert recipes.main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err and len(output.err.splitlines()) == 1 and output.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_names_are_paths_without_the_suffix(book):
    assert list(list_recipes(book)) == ["own", "strong/net"]
