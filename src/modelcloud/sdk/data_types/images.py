"""Images: PIL images in the function, data URIs in JSON.

Must never: decode what is over the pixel limit, or a format that is not on the short list here.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from modelcloud.errors import ModelError
from modelcloud.sdk.data_types.base import MISSING, DataType, declared_wrong, describe
from modelcloud.sdk.data_types.data_uri import read_data_uri, write_data_uri
from modelcloud.sdk.data_types.limits import camel_case, count_words, in_order, whole_limits

if TYPE_CHECKING:
    from PIL.Image import Image

#: Width times height of the greatest image that is decoded: 200 MB as RGBA.
MAX_PIXELS = 50_000_000
#: Formats that are read. Others, EPS above all, run or unpack more than pixels.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
#: What a model may return for an image.
RETURNED = (
    "a PIL image, or a numpy array of uint8 (0 to 255) and shape (height, width) or "
    "(height, width, 1, 3 or 4)"
)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PNG_COLOURS = {1: 0, 3: 2, 4: 6}
DATA_URI_SCHEMA = {"type": "string", "format": "uri", "pattern": "^data:[^,]*;base64,"}


@dataclass(frozen=True)
class Size:
    """Limits on width and height in pixels; None where there is none."""

    width: int | None = None
    height: int | None = None
    min_width: int | None = None
    min_height: int | None = None
    max_width: int | None = None
    max_height: int | None = None

    def declared(self, type_name: str) -> Size:
        """Itself, once its numbers are seen to make sense.

        Raises:
            ModelLoadError: they do not.
        """
        whole_limits(type_name, 1, asdict(self))
        for side in ("width", "height"):
            names = (f"min_{side}", side, f"max_{side}")
            in_order(type_name, *((name, getattr(self, name)) for name in names))
        width, height = self.sample()
        if width * height > MAX_PIXELS:
            raise declared_wrong(
                type_name, f"the size is at least {width}x{height}", f"{MAX_PIXELS} pixels at most"
            )
        return self

    def fits(self, width: int, height: int) -> bool:
        """Whether an image of this size is within the limits."""
        return _fits(width, self.width, self.min_width, self.max_width) and _fits(
            height, self.height, self.min_height, self.max_height
        )

    def words(self) -> str:
        """` 512 pixels wide and at most 600 pixels high`, or nothing."""
        sides = [
            (self.width, self.min_width, self.max_width, "wide"),
            (self.height, self.min_height, self.max_height, "high"),
        ]
        said = [
            count_words(exact or low, exact or high, "pixels").replace(" of", "", 1) + f" {word}"
            for exact, low, high, word in sides
            if exact or low or high
        ]
        return " and".join(said)

    def sample(self) -> tuple[int, int]:
        """A size within the limits, 64x64 where they allow it."""
        return (
            self.width or max(self.min_width or 1, min(64, self.max_width or 64)),
            self.height or max(self.min_height or 1, min(64, self.max_height or 64)),
        )


def _fits(side: int, exact: int | None, low: int | None, high: int | None) -> bool:
    return side >= (exact or low or 1) and side <= (exact or high or side)


class image(DataType):
    """An image: a PIL image in the function (mode L, RGB or RGBA, as `channels` says).

    As an input it is accepted as a data URI of PNG, JPEG, WebP, GIF (the first frame) or BMP and
    converted to the declared channels. As an output a model returns a PIL image, or a numpy array
    of uint8 and shape (height, width) or (height, width, 1, 3 or 4).

    Args:
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        width: exact width in pixels, and so on for the other sizes.
        height: exact height.
        min_width: least width.
        min_height: least height.
        max_width: greatest width.
        max_height: greatest height.
        default_output_format: `PNG` or `JPEG`; JPEG for 3 channels, else PNG, when not given.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "image"
    converts_in = True
    converts_out = True

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int | None = None,
        height: int | None = None,
        min_width: int | None = None,
        min_height: int | None = None,
        max_width: int | None = None,
        max_height: int | None = None,
        default_output_format: str | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        if isinstance(channels, bool) or channels not in _MODES:
            raise declared_wrong("image", f"channels is {describe(channels)}", "1, 3 or 4")
        output = default_output_format or ("JPEG" if channels == 3 else "PNG")
        if output not in {"PNG", "JPEG"} or (output == "JPEG" and channels == 4):
            raise declared_wrong(
                "image",
                f"default_output_format is {describe(output)} with {channels} channels",
                "'PNG', or 'JPEG' for 1 or 3 channels",
            )
        self.channels, self.default_output_format = channels, output
        self.size = Size(width, height, min_width, min_height, max_width, max_height)
        self.size.declared("image")
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        return f"an image{self.size.words()} as a base64 data URI of {', '.join(FORMATS)}"

    def _json_type(self) -> Any:
        return str

    def _json_schema(self) -> dict[str, Any]:
        return dict(DATA_URI_SCHEMA)

    def _deserialize(self, value: Any) -> Image:
        picture = decoded(value, self, self.size, FORMATS)
        try:
            return self._in_mode(picture)
        except ValueError:
            raise self.refused(f"an image of mode {picture.mode}") from None

    def _serialize(self, value: Any) -> str:
        picture = as_picture(value, self)
        if not self.size.fits(*picture.size):
            got = f"an image of {picture.width}x{picture.height} pixels"
            raise self.refused(got, f"an image{self.size.words()}")
        return encoded(self._in_mode(picture), self.default_output_format)

    def _in_mode(self, picture: Image) -> Image:
        mode = _MODES[self.channels]
        return picture if picture.mode == mode else picture.convert(mode)

    def _limits(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "defaultOutputFormat": self.default_output_format,
            **camel_case(asdict(self.size)),
        }

    def _example(self) -> str:
        return plain_png(*self.size.sample(), bytes([128] * self.channels))


def decoded(value: Any, kind: DataType, size: Size, formats: tuple[str, ...]) -> Image:
    """The image in a data URI, loaded; its limits are checked before any pixel is decoded.

    Raises:
        InvalidInput: it is none, is damaged, or is over a limit.
    """
    if not isinstance(value, str):
        raise kind.refused(describe(value))
    try:
        data = read_data_uri(value)
    except ValueError as error:
        raise kind.refused(str(error)) from None
    pil = pillow()
    picture: Image
    try:
        picture = pil.open(io.BytesIO(data), formats=formats)
    except (pil.DecompressionBombError, pil.DecompressionBombWarning):  # Pillow's limit is higher
        raise kind.refused(f"an image of more than {MAX_PIXELS} pixels") from None
    except Exception:  # decoders raise whatever damaged bytes lead them to
        raise kind.refused("data that is no such image") from None
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise kind.refused(f"an image of {width}x{height} pixels (over {MAX_PIXELS})")
    if not size.fits(width, height):
        raise kind.refused(f"an image of {width}x{height} pixels")
    try:
        picture.load()
    except Exception:  # as above
        raise kind.refused("a damaged image") from None
    return picture


def encoded(picture: Image, image_format: str) -> str:
    """The data URI of a PIL image."""
    buffer = io.BytesIO()
    picture.save(buffer, format=image_format)
    return write_data_uri(buffer.getvalue(), f"image/{image_format.lower()}")


def as_picture(value: Any, kind: DataType) -> Image:
    """The PIL image of what a model returned.

    Raises:
        InvalidInput: it is neither a PIL image nor an array of the right shape and type.
    """
    pil = pillow()
    picture: Image = value if isinstance(value, pil.Image) else pil.fromarray(_pixels(value, kind))
    return picture


def _pixels(value: Any, kind: DataType) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray):
        raise kind.refused(describe(value), RETURNED)
    if value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    shaped = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in {3, 4})
    if value.dtype != numpy.uint8 or not value.size or not shaped:
        raise kind.refused(describe(value), RETURNED)
    return value


def plain_png(width: int, height: int, pixel: bytes) -> str:
    """The data URI of a PNG of one colour, made without Pillow: examples are shown before it loads.

    Args:
        width: in pixels.
        height: in pixels.
        pixel: one byte per channel: 1, 3 or 4.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOURS[len(pixel)], 0, 0, 0)
    packer, row = zlib.compressobj(), b"\0" + pixel * width
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return write_data_uri(data, "image/png")


def pillow() -> Any:
    """`PIL.Image`, when it is needed.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import PIL.Image
    except ImportError:
        raise ModelError("images need Pillow: pip install 'modelcloud[images]'") from None
    return PIL.Image
