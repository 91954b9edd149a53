"""Picture files are seen as the pictures of the data set were, and what is none costs only its own line."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from safetensors.torch import load_file, save_file
from support.saved_runs import bare, picture, pictures_of, predictions, saved_run

from cifar_lab.commands import predict
from cifar_lab.files.contact_sheet import CELL, cut_tile


@pytest.fixture
def answer(capsys):
    """What --json prints, by file name, and the exit status."""

    def ask(*arguments, run="vit"):
        status = predict.main([str(saved_run(run).path), *map(str, arguments), "--json"])
        told = json.loads(capsys.readouterr().out)
        return {os.path.basename(one["file"]): one["top"] for one in told["pictures"]}, told, status

    return ask


def noise(*shape, seed=0):
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("run", ["vit", "net"])
def test_test_pictures_from_files_get_the_run_s_own_predictions(answer, tmp_path, run):
    images, kept = pictures_of(run), predictions(run)
    for index, pixels in enumerate(images.images):
        picture(pixels).save(tmp_path / f"{index:02}.png")
    top, told, status = answer(tmp_path, "--top", 10, run=run)
    assert status == 0 and len(top) == 60
    # Autocast rounds differently in batches of another size, and of two equally likely classes either may come first.
    tolerance = 2e-2 if run == "net" else 1e-5
    firsts_shared = 0
    for index, ranked in enumerate(top.values()):
        own = images.classes[kept["predictions"][index]]
        own_probability = next(one["probability"] for one in ranked if one["label"] == own)
        assert own_probability == pytest.approx(kept["confidences"][index], abs=tolerance)
        assert ranked[0]["probability"] <= own_probability + tolerance
        firsts_shared += ranked[0]["label"] == own
        assert sum(one["probability"] for one in ranked) == pytest.approx(1, abs=1e-4)
        probabilities = [one["probability"] for one in ranked]
        assert probabilities == sorted(probabilities, reverse=True)
    assert firsts_shared >= 57
    assert told["prepared"]["source_size"] == 16
    assert told["prepared"]["image_size"] == {"vit": 16, "net": 32}[run]


def test_long_class_names_fit_the_terminal(tmp_path):
    weights = bare("vit", tmp_path / "copy")
    description = weights.with_name("model.json")
    fields = json.loads(description.read_text())
    fields["classes"] = [f"{'very ' * 4}{name} with_a_name_of_its_own" for name in fields["classes"]]
    description.write_text(json.dumps(fields))
    noise(16, 16).save(tmp_path / "noise.png")
    command = [sys.executable, "-m", "cifar_lab", "predict", str(weights), str(tmp_path / "noise.png")]
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(terminal, "wb") as stdout:
        subprocess.run(command, stdout=stdout, check=True)
    shown = os.read(screen, 1 << 16).decode().splitlines()
    os.close(screen)
    assert len(shown) > 3 and max(map(len, shown)) <= 80
    whole = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert whole.count("\n") == 1, "in a pipe a picture is a line"
    assert all(part in " ".join(" ".join(shown).split()) for part in fields["classes"][0].split())


def test_equally_likely_classes_come_in_their_order(tmp_path, capsys):
    weights = bare("vit", tmp_path / "copy")
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    noise(16, 16).save(tmp_path / "noise.png")
    assert predict.main([str(weights), str(tmp_path / "noise.png"), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["pictures"]
    assert [one["label"] for one in told["top"]] == list(pictures_of("vit").classes[:5])


def test_a_large_picture_is_shrunk_to_the_data_s_size_by_its_centre_square(answer, tmp_path):
    wide = noise(90, 40)
    wide.save(tmp_path / "wide.png")
    ImageOps.fit(wide, (16, 16), Image.Resampling.BICUBIC).save(tmp_path / "small.png")
    wide.crop((0, 0, 40, 40)).save(tmp_path / "left.png")
    top, _, status = answer(tmp_path)
    assert status == 0
    assert top["wide.png"] == top["small.png"] != top["left.png"]


def test_any_mode_and_orientation(answer, tmp_path):
    image = noise(16, 16)
    grey = image.convert("L")
    image.save(tmp_path / "rgb.png")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "grey_rgb.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    image.quantize(64).save(tmp_path / "palette.png")
    image.quantize(64).convert("RGB").save(tmp_path / "palette_rgb.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    image.quantize(64).save(tmp_path / "moving.gif", save_all=True, append_images=[noise(16, 16, seed=1)])
    image.save(tmp_path / "rgb.tiff")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "rgb.webp", lossless=True) if features.check("webp") else None
    top, _, status = answer(tmp_path)
    assert status == 0 and len(top) >= 11
    assert (
        top["rgb.png"] == top["rgba.png"] == top["turned.png"] == top["rgb.tiff"] == top.get("rgb.webp", top["rgb.png"])
    )
    assert top["grey.png"] == top["grey_rgb.png"] == top["grey16.png"] != top["rgb.png"]
    assert top["palette.png"] == top["palette_rgb.png"] == top["moving.gif"]


def test_what_is_no_picture_is_named_and_the_others_predicted(tmp_path, capsys):
    noise(20, 20).save(tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    files = {
        "text.png": (b"no picture\n", "is not a picture"),
        "empty.jpg": (b"", "is not a picture"),
        "torn.png": (good[:120], "cannot be read"),
        "zeros.png": (bytes(1000), "is not a picture"),
        "script.eps": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "is not a picture",
        ),
        "pipe.png": (None, "is not a file"),
        "link.png": (None, "does not exist"),
        "gone.png": (None, "does not exist"),
        "x" * 300: (None, "cannot be read: File name too long"),
    }
    for name, (content, _) in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "bomb.png")
    Image.new("F", (8, 8)).save(tmp_path / "float.tiff")
    files |= {
        "bomb.png": (None, "cannot be read: Image size (196000000 pixels) exceeds limit of 178956970 pixels"),
        "float.tiff": (None, "cannot be read: floating-point pictures have no defined range"),
    }
    names = [*files, "good.png"]
    assert predict.main([str(saved_run("vit").path), *(str(tmp_path / name) for name in names)]) == 1
    output = capsys.readouterr()
    said = output.err.strip().splitlines()
    assert len(said) == len(files)
    for line, (name, (_, problem)) in zip(said, files.items(), strict=True):
        assert line.startswith(f"cifar-lab predict: {tmp_path / name}: ") and problem in line
    (line,) = output.out.splitlines()
    assert line.startswith(f"{tmp_path / 'good.png'}: ") and line.count("%") == 5


def test_folders_are_searched_below_and_loops_end(answer, tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for place in (tmp_path / "1.png", deep / "2.JPG", deep / "3.webp"):
        noise(16, 16).save(place)
    (deep / "notes.txt").write_text("not looked at")
    (deep / "loop").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(deep)
    top, told, status = answer(tmp_path)
    assert (list(top), told["problems"], status) == (["1.png", "2.JPG", "3.webp"], [], 0)


def test_names_that_no_terminal_prints(tmp_path, capsys):
    strange = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "\x1b[31mred.png"]
    for name in strange:
        noise(16, 16).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / name)
    assert predict.main([str(saved_run("vit").path), str(tmp_path), "--sheet", str(tmp_path / "sheet.png")]) == 0
    out = capsys.readouterr().out
    out.encode("utf-8")
    assert len(out.splitlines()) == 3
    for part in ("caf\\xe9.png", "new\\nline.png", "\\x1b[31mred.png"):
        assert part in out


def test_more_pictures_than_a_batch_and_a_sheet(answer, tmp_path):
    images = pictures_of("vit")
    for index in range(70):
        picture(images.images[index % 60]).save(tmp_path / f"{index:02}.png")
    (tmp_path / "65.png").write_bytes(b"broken")
    sheet = tmp_path / "sheet" / "s.png"
    sheet.parent.mkdir()
    top, told, status = answer(tmp_path, "--sheet", sheet)
    assert (len(top), len(told["problems"]), status) == (69, 1, 1)
    assert top["00.png"] == top["60.png"] and top["01.png"] == top["61.png"] != top["00.png"]
    with Image.open(sheet) as drawn:
        for index in (0, 9, 63):
            expected = picture(images.images[index % 60]).resize((CELL, CELL), Image.Resampling.BICUBIC)
            assert cut_tile(drawn, index).tobytes() == expected.tobytes()
    assert [path.name for path in sheet.parent.iterdir()] == ["s.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there.png", "--sheet", "there.png"], "exists already"),
        (["there.png", "--sheet", "sheet.txt"], "its name must end with .png or"),
        (["there.png", "--sheet", "no/sheet.png"], "there is no folder"),
        (["empty"], "there are no pictures in empty"),
    ],
)
def test_wrong_use_is_named(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    noise(16, 16).save("there.png")
    before = (tmp_path / "there.png").read_bytes()
    (tmp_path / "empty").mkdir()
    assert predict.main([str(saved_run("vit").path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "there.png"]
    assert (tmp_path / "there.png").read_bytes() == before


def test_a_bare_file_predicts_as_its_run(answer, capsys, tmp_path):
    """Its pictures go to the model's size at once, which is the same where that is the data's."""
    noise(30, 30).save(tmp_path / "x.png")
    expected = answer(tmp_path / "x.png")[0]["x.png"]
    assert predict.main([str(bare("vit", tmp_path / "copy")), str(tmp_path / "x.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"][0]["top"] == expected
    assert torch.tensor([one["probability"] for one in expected]).sum() <= 1.0001
