"""Pictures as they come: every kind is read by a stated rule, and what cannot be read says why."""

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.images import BadImage, read_square, square


def saved(image, kind, **kwargs):
    file = BytesIO()
    image.save(file, kind, **kwargs)
    return file.getvalue()


def colored(color, size=(40, 30), mode="RGB"):
    return Image.new(mode, size, color)


def middle(data, size=16):
    pixels = read_square(data, size)
    assert pixels.shape == (size, size, 3)
    return pixels[size // 2, size // 2].tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_content_tells_the_kind(kind):
    assert np.abs(np.array(middle(saved(colored((200, 30, 90)), kind))) - (200, 30, 90)).max() <= 4


def test_gray_becomes_three_equal_channels():
    assert middle(saved(colored(77, mode="L"), "PNG")) == [77, 77, 77]
    assert middle(saved(colored(1, mode="1"), "PNG")) == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_upper_8_bits(kind):
    image = Image.fromarray(np.full((30, 40), 77 * 256 + 200, np.uint16))
    assert middle(saved(image, kind)) == [77, 77, 77]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind):
    red = middle(saved(colored((0, 255, 255, 0), mode="CMYK"), kind))
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_what_is_transparent_becomes_white():
    assert middle(saved(colored((10, 20, 30, 0), mode="RGBA"), "PNG")) == [255, 255, 255]
    assert middle(saved(colored((10, 20, 30, 255), mode="RGBA"), "PNG")) == [10, 20, 30]
    palette = colored((10, 20, 30)).quantize(4)
    assert middle(saved(palette, "PNG")) == [10, 20, 30]
    assert middle(saved(palette, "PNG", transparency=palette.getpixel((0, 0)))) == [255, 255, 255]


def test_of_an_animation_the_first_picture_counts():
    data = saved(colored((250, 0, 0)), "GIF", save_all=True, append_images=[colored((0, 250, 0))])
    assert middle(data) == [250, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_turned_picture_is_set_upright(kind):
    picture = np.zeros((48, 48, 3), np.uint8)
    picture[:16] = 255  # its top, which belongs to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = read_square(saved(Image.fromarray(picture), kind, exif=exif), 48)
    assert upright[:, 36:].mean() > 240
    assert upright[:, :28].mean() < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_tiny_and_narrow_pictures_are_enlarged(size):
    assert middle(saved(colored((50, 100, 150), size), "PNG"), 256) == [50, 100, 150]


def test_a_square_of_the_right_size_stays_as_it_is(rng):
    pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(read_square(saved(Image.fromarray(pixels), "PNG"), 32), pixels)
    assert square(pixels, 32) is pixels
    np.testing.assert_array_equal(square(pixels, 8), read_square(saved(Image.fromarray(pixels), "PNG"), 8))


def test_the_square_is_the_center_of_the_scaled_picture(rng):
    """Against the paper's words: the shorter side is scaled to 32, then the middle is cropped out."""
    picture = Image.fromarray(rng.integers(0, 256, (64, 160, 3), np.uint8))
    scaled = picture.resize((80, 32), Image.Resampling.BICUBIC).crop((24, 0, 56, 32))
    np.testing.assert_array_equal(read_square(saved(picture, "PNG"), 32), np.asarray(scaled))


def huge_png():
    """Half a gigapixel in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 25_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [10_000, 20_000], ids=["where Pillow warns", "where Pillow refuses"])
def test_huge_pictures_are_refused(width):
    data = huge_png()
    header = data[16:33].replace(struct.pack(">I", 20_000), struct.pack(">I", width), 1)[:13]
    data = data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=Image.DecompressionBombWarning)  # as in `images`
        with pytest.raises(BadImage, match="exceeds limit"):
            read_square(data, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_pictures_are_refused(kind, share, rng):
    data = saved(Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8)), kind)
    with pytest.raises(BadImage, match=r"\w"):
        read_square(data[: int(share * len(data))], 32)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is none of JPEG, PNG"),
        (b"not a picture", "it is none of JPEG, PNG"),
        (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "32 bits"),
        (saved(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "32 bits"),
        (saved(colored(0), "PPM"), "it is none of JPEG, PNG"),
    ],
    ids=["empty", "text", "float", "int32", "a kind not in the list"],
)
def test_what_is_no_picture_says_so(data, why):
    with pytest.raises(BadImage, match=why):
        read_square(data, 32)
