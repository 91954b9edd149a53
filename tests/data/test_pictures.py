"""A picture is what Pillow makes of it: turned, in any mode and of any shape."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from cifar_lab.data.pictures import Fit, open_picture, upright_rgb

XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def behind_the_pixels(png: bytes) -> bytes:
    """The same PNG with its eXIf chunk at the end."""
    place, chunks = 8, []
    while place < len(png):
        size = 12 + struct.unpack(">I", png[place : place + 4])[0]
        chunks.append(png[place : place + size])
        place += size
    chunks.sort(key=lambda chunk: {b"eXIf": 1, b"IEND": 2}.get(chunk[4:8], 0))
    assert [chunk[4:8] for chunk in chunks][-2:] == [b"eXIf", b"IEND"]
    return png[:8] + b"".join(chunks)


def with_text(image: Image.Image, key: str, text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text) if key.startswith("XML") else info.add_text(key, text, zip=True)
    return encoded(image, "PNG", pnginfo=info)


def raw_profile(image: Image.Image, orientation: int) -> bytes:
    """As ImageMagick writes it."""
    data = exif(orientation)
    return with_text(image, "Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")


CARRIERS: dict[str, Callable[[Image.Image, int], bytes]] = {
    "JPEG": lambda image, value: encoded(image, "JPEG", exif=exif(value)),
    "WEBP": lambda image, value: encoded(image, "WEBP", exif=exif(value), lossless=True),
    "TIFF": lambda image, value: encoded(image, "TIFF", exif=exif(value)),
    "eXIf": lambda image, value: encoded(image, "PNG", exif=exif(value)),
    "eXIf behind the pixels": lambda image, value: behind_the_pixels(encoded(image, "PNG", exif=exif(value))),
    "raw profile": raw_profile,
    "XMP in PNG": lambda image, value: with_text(image, "XML:com.adobe.xmp", XMP.format(value)),
    "XMP in JPEG": lambda image, value: encoded(image, "JPEG", xmp=XMP.format(value).encode()),
}
TURNS = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_pillow_turns_it(carrier: str, orientation: int) -> None:
    plain, data = (CARRIERS[carrier](noise(12, 8), value) for value in (1, orientation))
    turned = np.asarray(upright_rgb(open_picture(io.BytesIO(data))))
    opened = Image.open(io.BytesIO(data))
    opened.load()
    np.testing.assert_array_equal(turned, np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))
    np.testing.assert_array_equal(turned, TURNS[orientation](np.asarray(Image.open(io.BytesIO(plain)))))


def test_a_picture_of_the_caller_stays_as_it_is() -> None:
    opened = Image.open(io.BytesIO(CARRIERS["JPEG"](noise(12, 8), 6)))
    assert upright_rgb(opened).size == (8, 12)
    assert opened.size == (12, 8) and opened.getexif()[0x0112] == 6


@pytest.mark.parametrize(("kind", "dtype"), [("TIFF", np.int32), ("PNG", np.uint16), ("PPM", np.uint16)])
def test_greys_of_more_bits(kind: str, dtype: type[np.generic]) -> None:
    """32 bits as they are, as far as they can be meant; of 16 the upper 8, in PPM too, which Pillow gives 32."""
    values = np.arange(0, 256, 4, dtype=np.int64).reshape(8, 8) + 3
    stored = values if kind == "TIFF" else values * 256 + 200
    picture = upright_rgb(open_picture(io.BytesIO(encoded(Image.fromarray(stored.astype(dtype)), kind))))
    np.testing.assert_array_equal(np.asarray(picture), np.stack([values] * 3, axis=-1))


@pytest.mark.parametrize("value", [-1, 256, 70_000])
def test_32_bits_beyond_255_are_refused(value: int) -> None:
    data = encoded(Image.fromarray(np.full((8, 8), value, np.int32)), "TIFF")
    with pytest.raises(ValueError, match=rf"no defined range beyond 0 to 255, and these are {value} to {value}"):
        upright_rgb(open_picture(io.BytesIO(data)))


@pytest.mark.parametrize("size", [(40, 10), (9, 30), (7, 7), (16, 16)])
def test_any_shape_comes_to_one_size(size: tuple[int, int]) -> None:
    image = noise(*size)
    made = {fit: np.asarray(upright_rgb(image, 16, fit)) for fit in ("crop", "pad", "squash")}
    assert {pixels.shape for pixels in made.values()} == {(16, 16, 3)}
    low, short = Image.Resampling.BICUBIC, min(size)
    left, top = (size[0] - short) / 2, (size[1] - short) / 2
    centre = image.resize((16, 16), low, box=(left, top, left + short, top + short))
    np.testing.assert_array_equal(made["crop"], np.asarray(centre))
    np.testing.assert_array_equal(made["squash"], np.asarray(image.resize((16, 16), low)))
    width, height = (round(16 * side / max(size)) for side in size)
    left, top = round((16 - width) / 2), round((16 - height) / 2)
    inside = made["pad"][top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, np.asarray(image.resize((width, height), low)))
    assert made["pad"].astype(int).sum() == inside.astype(int).sum()


def test_the_centre_square_is_the_default() -> None:
    default: Fit = "crop"
    np.testing.assert_array_equal(upright_rgb(noise(40, 10), 8), upright_rgb(noise(40, 10), 8, default))
