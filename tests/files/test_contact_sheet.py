"""Captions below pictures: whole, or cut with a sign, and never over the next one."""

from PIL import Image

from cifar_lab.files.contact_sheet import CELL, GAP, Tile, draw_sheet


def drawn(path, *captions):
    """The sheet of tiles with one line each, as rows below the pictures."""
    picture = Image.new("RGB", (4, 4), "red")
    draw_sheet(path, [Tile(picture, ((text, "black"),)) for text in captions])
    with Image.open(path) as sheet:
        return sheet.crop((GAP, GAP + CELL, sheet.width, sheet.height))


def test_a_caption_that_is_too_wide_ends_with_an_ellipsis_before_the_next_tile(tmp_path):
    long = drawn(tmp_path / "a.png", "W" * 40)
    assert set(long.crop((CELL + GAP, 0, *long.size)).tobytes()) == {255}
    fits = drawn(tmp_path / "b.png", "WWWWWWWWW…")
    assert long.tobytes() == fits.tobytes()


def test_a_caption_that_fits_is_whole(tmp_path):
    one, other = (drawn(tmp_path / "a.png", f"9999 is automobi{end}") for end in ("le", "li"))
    assert one.tobytes() != other.tobytes()


def test_letters_are_as_high_as_those_of_a_page(tmp_path):
    rows = drawn(tmp_path / "a.png", "Eg").convert("L").point(lambda value: 255 * (value < 128))
    _, top, _, bottom = rows.getbbox()
    assert bottom - top >= 12, "an E and the tail of a g, of 13 px"
