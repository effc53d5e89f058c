"""Images and segmentation maps: what comes in, what goes out, and what is refused unread."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modelcloud.data_types import image, segmentation
from modelcloud.errors import InvalidInput
from modelcloud.sdk.data_types.images import MAX_PIXELS

RED, GREEN = (255, 0, 0), (0, 255, 0)


def data_uri(picture: Image.Image, image_format: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=image_format, **options)
    payload = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{image_format.lower()};base64,{payload}"


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def png_that_claims(width: int, height: int) -> str:
    """A small PNG whose header announces this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_an_image_comes_in_as_a_loaded_pil_image(image_format: str) -> None:
    picture = image().deserialize(data_uri(Image.new("RGB", (5, 3), RED), image_format))
    assert isinstance(picture, Image.Image)
    assert (picture.size, picture.mode) == ((5, 3), "RGB")
    assert np.abs(np.asarray(picture).astype(int) - RED).max() < 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(("channels", "wanted"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_any_mode_is_converted_to_the_declared_channels(
    mode: str, channels: int, wanted: str
) -> None:
    picture = image(channels=channels).deserialize(data_uri(Image.new(mode, (2, 2))))
    assert picture.mode == wanted


@pytest.mark.parametrize(
    ("returned", "channels", "pixel"),
    [
        (Image.new("RGB", (2, 1), RED), 3, RED),
        (Image.new("L", (2, 1), 7), 3, (7, 7, 7)),
        (np.full((1, 2, 3), GREEN, np.uint8), 3, GREEN),
        (np.full((1, 2, 4), (*GREEN, 9), np.uint8), 4, (*GREEN, 9)),
        (np.full((1, 2), 7, np.uint8), 1, 7),
        (np.full((1, 2, 1), 7, np.uint8), 1, 7),
        (np.full((2, 1, 3), RED, np.uint8).transpose(1, 0, 2), 3, RED),
    ],
)
def test_pil_images_and_numpy_arrays_go_out_as_data_uris(
    returned: Any, channels: int, pixel: Any
) -> None:
    kind = image(channels=channels, default_output_format="PNG")
    answer = kind.serialize(returned)
    assert answer.startswith("data:image/png;base64,")
    assert opened(answer).getpixel((0, 0)) == pixel
    assert kind.deserialize(answer).size == (2, 1)


def test_three_channels_go_out_as_jpeg_unless_told_otherwise() -> None:
    picture = Image.new("RGB", (2, 2))
    assert opened(image().serialize(picture)).format == "JPEG"
    assert opened(image(channels=4).serialize(picture)).format == "PNG"
    assert opened(image(default_output_format="PNG").serialize(picture)).format == "PNG"


@pytest.mark.parametrize(
    "returned",
    [
        "data:image/png;base64,",
        None,
        [[0, 1]],
        np.zeros((2, 2), np.float32),
        np.zeros((2, 2), np.int64),
        np.zeros((3, 2, 2), np.uint8),
        np.zeros((0, 2), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_what_is_no_image_does_not_go_out(returned: Any) -> None:
    with pytest.raises(InvalidInput, match=r"accepted: a PIL image, or a numpy array of uint8"):
        image().serialize(returned)


@pytest.mark.parametrize(
    ("limits", "size", "fits"),
    [
        ({"width": 4, "height": 2}, (4, 2), True),
        ({"width": 4}, (5, 2), False),
        ({"height": 4}, (4, 5), False),
        ({"min_width": 4}, (3, 9), False),
        ({"min_width": 4, "max_width": 5}, (4, 9), True),
        ({"max_width": 5}, (6, 1), False),
        ({"min_height": 4}, (9, 3), False),
        ({"max_height": 4}, (9, 5), False),
    ],
)
def test_sizes_are_held_to_both_ways(limits: Any, size: tuple[int, int], fits: bool) -> None:
    kind, picture = image(**limits), Image.new("RGB", size)
    if fits:
        assert kind.deserialize(data_uri(picture)).size == size
        assert kind.serialize(picture)
    else:
        with pytest.raises(InvalidInput, match=f"got an image of {size[0]}x{size[1]} pixels"):
            kind.deserialize(data_uri(picture))
        with pytest.raises(InvalidInput, match=f"got an image of {size[0]}x{size[1]} pixels"):
            kind.serialize(picture)


@pytest.mark.parametrize(
    ("width", "height"), [(MAX_PIXELS + 1, 1), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 9)]
)
def test_an_image_over_the_pixel_limit_is_refused_before_it_is_decoded(
    width: int, height: int
) -> None:
    with pytest.raises(InvalidInput, match="pixels"):
        image().deserialize(png_that_claims(width, height))


def test_a_damaged_or_cut_image_is_refused() -> None:
    whole = data_uri(Image.effect_noise((64, 64), 50).convert("RGB"))
    with pytest.raises(InvalidInput, match="a damaged image"):
        image().deserialize(whole[: len(whole) // 2 // 4 * 4 + 2])
    with pytest.raises(InvalidInput, match="a damaged image"):
        image().deserialize(png_that_claims(100, 100))


def test_only_the_listed_formats_are_read() -> None:
    for image_format in ("TIFF", "PPM", "EPS"):
        with pytest.raises(InvalidInput, match="no such image"):
            image().deserialize(data_uri(Image.new("RGB", (2, 2)), image_format))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iVBORw0KGgo=", "text that is no data URI"),
        ("data:image/png;base64", "text that is no data URI"),
        ("data:image/png,abc", "a data URI that is not base64"),
        ("data:image/png;base64,i VBO", "a data URI with damaged base64"),
        ("data:image/png;base64,iVBOR", "a data URI with damaged base64"),
        ("data:image/png;base64,", "data that is no such image"),
        ("https://example.org/a.png", "text that is no data URI"),
    ],
)
def test_what_is_no_base64_data_uri_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        image().deserialize(text)
    assert refused.value.fields["got"] == said


def test_an_example_has_the_declared_size_and_channels() -> None:
    picture = opened(image(channels=4, width=3, min_height=100).example())
    assert (picture.size, picture.mode) == ((3, 100), "RGBA")
    assert opened(image(max_width=10).example()).size == (10, 64)
    assert opened(segmentation({"a": 9}, height=7).example()).getpixel((0, 0)) == 9


def test_a_default_image_may_be_a_pil_image() -> None:
    kind = image(default=Image.new("RGB", (2, 2), RED), default_output_format="PNG")
    assert kind.default_value().getpixel((0, 0)) == RED


# ---- segmentation

SKY, DOG = (10, 20, 30), (200, 0, 100)
KIND = segmentation(
    {"sky": 0, "dog": 7}, label_to_color={"sky": SKY, "dog": DOG}, default_label="dog"
)


def test_a_map_in_colours_comes_in_as_ids() -> None:
    for mode in ("RGB", "RGBA"):
        picture = Image.new("RGB", (2, 1), SKY).convert(mode)
        picture.putpixel((1, 0), DOG)
        ids = KIND.deserialize(data_uri(picture))
        assert ids.mode == "L"
        assert np.asarray(ids).tolist() == [[0, 7]]


def test_a_palette_map_is_read_by_its_colours() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([*DOG, *SKY])
    picture.putpixel((1, 0), 1)
    assert np.asarray(KIND.deserialize(data_uri(picture))).tolist() == [[7, 0]]


def test_a_grey_map_comes_in_as_the_ids_it_holds() -> None:
    picture = Image.fromarray(np.array([[0, 7]], np.uint8))
    assert np.asarray(KIND.deserialize(data_uri(picture))).tolist() == [[0, 7]]


def test_a_pixel_that_is_no_labels_becomes_the_default_label() -> None:
    grey = Image.fromarray(np.array([[0, 5, 255]], np.uint8))
    assert np.asarray(KIND.deserialize(data_uri(grey))).tolist() == [[0, 7, 7]]
    colours = Image.fromarray(np.array([[SKY, (10, 20, 31), (255, 255, 255)]], np.uint8))
    assert np.asarray(KIND.deserialize(data_uri(colours))).tolist() == [[0, 7, 7]]
    out = opened(KIND.serialize(np.array([[0, -1, 300, 263]])))
    assert np.asarray(out).tolist() == [[list(SKY), list(DOG), list(DOG), list(DOG)]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_ids_go_out_in_colours_and_come_back(dtype: Any) -> None:
    kind = segmentation({f"label {number}": number for number in range(256)})
    ids = np.arange(256, dtype=dtype).reshape(16, 16)
    assert np.array_equal(np.asarray(kind.deserialize(kind.serialize(ids))), ids)
    assert kind.serialize(Image.fromarray(ids.astype(np.uint8))) == kind.serialize(ids)
    assert opened(kind.serialize(ids)).mode == "RGB"


def test_a_mask_of_true_and_false_goes_out_as_ids_0_and_1() -> None:
    kind = segmentation({"no": 0, "yes": 1}, label_to_color={"no": SKY, "yes": DOG})
    out = opened(kind.serialize(np.array([[True, False]])))
    assert np.asarray(out).tolist() == [[list(DOG), list(SKY)]]


def test_labels_without_a_colour_get_one_that_nothing_else_has() -> None:
    black = (0, 0, 0)
    given = segmentation(
        {str(number): number for number in range(256)}, label_to_color={"9": black}
    )
    colours = given.to_dict()["labelToColor"]
    assert colours["9"] == list(black)
    assert len({tuple(colour) for colour in colours.values()}) == 256


@pytest.mark.parametrize(
    "returned",
    [
        Image.new("RGB", (2, 2)),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((2, 2), np.float32),
        np.zeros((0, 2), np.uint8),
        "abc",
    ],
)
def test_what_is_no_map_of_ids_does_not_go_out(returned: Any) -> None:
    with pytest.raises(InvalidInput, match="accepted: a PIL image of mode L, or a 2-D numpy array"):
        KIND.serialize(returned)


def test_a_map_is_refused_as_jpeg_in_16_bits_or_of_another_size() -> None:
    with pytest.raises(InvalidInput, match="no such image"):
        KIND.deserialize(data_uri(Image.new("RGB", (2, 2)), "JPEG"))
    with pytest.raises(InvalidInput, match="an image of mode I;16"):
        KIND.deserialize(data_uri(Image.new("I;16", (2, 2))))
    sized = segmentation({"a": 0}, width=3)
    with pytest.raises(InvalidInput, match="got an image of 2x2 pixels"):
        sized.deserialize(data_uri(Image.new("L", (2, 2))))
    with pytest.raises(InvalidInput, match="got a map of 2x2 pixels"):
        sized.serialize(np.zeros((2, 2), np.uint8))


def test_what_is_missing_is_said_when_it_is_needed() -> None:
    check = (
        "import sys; sys.modules.update({'PIL': None, 'PIL.Image': None, 'numpy': None})\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'numpy' else find(name, *rest)\n"
        "from modelcloud.data_types import image, vector\n"
        "print(vector(2).deserialize([1, 2]))\n"
        "kind = image()\n"
        "try: kind.deserialize(kind.example())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "[1.0, 2.0]",
        "ModelError images need Pillow: pip install 'modelcloud[images]'",
    ]
