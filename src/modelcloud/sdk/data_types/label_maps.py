"""Segmentation maps: a label for every pixel, ids in the function and colours in JSON.

Must never: let an id or a colour through that no label has; it becomes the default label's.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from modelcloud.errors import ModelError, ModelLoadError
from modelcloud.sdk.data_types.base import MISSING, DataType, declared_wrong, describe
from modelcloud.sdk.data_types.images import (
    DATA_URI_SCHEMA,
    Size,
    as_picture,
    decoded,
    encoded,
    pillow,
    plain_png,
)
from modelcloud.sdk.data_types.limits import camel_case, choice_words

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

#: What a model may return for a map.
RETURNED = "a PIL image of mode L, or a 2-D numpy array of whole numbers, that holds label ids"


class segmentation(DataType):
    """A label for every pixel: in the function a PIL image of mode L that holds label ids.

    As an input it is accepted as a PNG data URI, grey (each value an id) or in colours (each one
    of `label_to_color`). As an output a model returns such a PIL image, or a 2-D numpy array of
    ids; it travels as a PNG in colours. A pixel that is no label's becomes `default_label`.

    Args:
        label_to_id: label → id from 0 to 255, no two alike.
        label_to_color: label → [red, green, blue], each from 0 to 255, no two alike; labels not
            named here get a colour of their own.
        default_label: the first label when not given.
        width: exact width in pixels, and so on for the other sizes.
        height: exact height.
        min_width: least width.
        min_height: least height.
        max_width: greatest width.
        max_height: greatest height.
        description: shown to users of the service.
        default: without one the field is required as an input.
    """

    type_name = "segmentation"
    converts_in = True
    converts_out = True

    def __init__(
        self,
        label_to_id: Mapping[str, int] | None = None,
        *,
        label_to_color: Mapping[str, Sequence[int]] | None = None,
        default_label: str | None = None,
        width: int | None = None,
        height: int | None = None,
        min_width: int | None = None,
        min_height: int | None = None,
        max_width: int | None = None,
        max_height: int | None = None,
        description: str | None = None,
        default: Any = MISSING,
    ) -> None:
        self.label_to_id = _labels(label_to_id)
        self.label_to_color = _colours(self.label_to_id, label_to_color or {})
        if default_label is not None and default_label not in self.label_to_id:
            raise _wrong(
                f"default_label is {describe(default_label)}", choice_words(self.label_to_id)
            )
        self.default_label = default_label or next(iter(self.label_to_id))
        self.size = Size(width, height, min_width, min_height, max_width, max_height)
        self.size.declared("segmentation")
        super().__init__(description=description, default=default)

    def _accepted(self) -> str:
        return (
            f"a segmentation map{self.size.words()} as a base64 data URI of PNG, 8-bit grey (ids) "
            "or in colours"
        )

    def _json_type(self) -> Any:
        return str

    def _json_schema(self) -> dict[str, Any]:
        return dict(DATA_URI_SCHEMA)

    def _deserialize(self, value: Any) -> Image:
        picture = decoded(value, self, self.size, ("PNG",))
        np = _numpy()
        if picture.mode == "L":
            ids = self._known(np.asarray(picture))
        elif picture.mode in {"P", "RGB", "RGBA"}:
            ids = self._of_colours(np.asarray(picture.convert("RGB")))
        else:
            raise self.refused(f"an image of mode {picture.mode}")
        labelled: Image = pillow().fromarray(ids)
        return labelled

    def _serialize(self, value: Any) -> str:
        np = _numpy()
        if isinstance(value, np.ndarray):
            ids = value
            if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iub":
                raise self.refused(describe(value), RETURNED)
        elif getattr(value, "mode", "") == "L":
            ids = np.asarray(as_picture(value, self))
        else:
            raise self.refused(describe(value), RETURNED)
        height, width = ids.shape
        if not self.size.fits(width, height):
            raise self.refused(f"a map of {width}x{height} pixels", f"a map{self.size.words()}")
        colours = np.zeros((256, 3), dtype=np.uint8)
        for label, colour in self.label_to_color.items():
            colours[self.label_to_id[label]] = colour
        return encoded(pillow().fromarray(colours[self._known(ids)]), "PNG")

    def _of_colours(self, rgb: Any) -> Any:
        np = _numpy()
        table = sorted(
            (red << 16 | green << 8 | blue, self.label_to_id[label])
            for label, (red, green, blue) in self.label_to_color.items()
        )
        codes, ids = np.array(table, dtype=np.uint32).T
        wide = rgb.astype(np.uint32)
        pixels = (wide[:, :, 0] << 16) | (wide[:, :, 1] << 8) | wide[:, :, 2]
        nearest = np.searchsorted(codes, pixels).clip(max=len(codes) - 1)
        default = self.label_to_id[self.default_label]
        return np.where(codes[nearest] == pixels, ids[nearest], default).astype(np.uint8)

    def _known(self, ids: Any) -> Any:
        np = _numpy()
        known = np.isin(ids, list(self.label_to_id.values()))
        return np.where(known, ids, self.label_to_id[self.default_label]).astype(np.uint8)

    def _limits(self) -> dict[str, Any]:
        return {
            "labels": list(self.label_to_id),
            "defaultLabel": self.default_label,
            "labelToId": self.label_to_id,
            "labelToColor": {label: list(rgb) for label, rgb in self.label_to_color.items()},
            **camel_case(asdict(self.size)),
        }

    def _example(self) -> str:
        return plain_png(*self.size.sample(), bytes([self.label_to_id[self.default_label]]))


def _wrong(what: str, accepted: str) -> ModelLoadError:
    return declared_wrong("segmentation", what, accepted)


def _labels(label_to_id: Any) -> dict[str, int]:
    if not isinstance(label_to_id, Mapping) or not label_to_id:
        got = "missing" if label_to_id is None else describe(label_to_id)
        raise _wrong(f"label_to_id is {got}", "label_to_id={'background': 0, 'person': 1}")
    for label, number in label_to_id.items():
        if not isinstance(label, str) or type(number) is not int or not 0 <= number <= 255:
            raise _wrong(
                f"label_to_id has {describe(label)} → {describe(number)}",
                "label → id from 0 to 255",
            )
    if len(set(label_to_id.values())) < len(label_to_id):
        raise _wrong("label_to_id has an id twice", "each id once")
    return dict(label_to_id)


def _colours(labels: dict[str, int], given: Mapping[str, Sequence[int]]) -> dict[str, Colour]:
    """Every label's colour: the given one, else one that depends on its id and is not taken."""
    colours: dict[str, Colour] = {}
    for label, rgb in given.items():
        if label not in labels:
            raise _wrong(f"label_to_color names {describe(label)}", choice_words(labels))
        whole = len(rgb) == 3 and all(type(part) is int and 0 <= part <= 255 for part in rgb)
        if not whole:
            raise _wrong(
                f"the colour of {label!r} is {list(rgb)}", "[red, green, blue], each from 0 to 255"
            )
        colours[label] = (rgb[0], rgb[1], rgb[2])
    if len(set(colours.values())) < len(colours):
        raise _wrong("label_to_color has a colour twice", "each colour once")
    taken = set(colours.values())
    for label, number in labels.items():
        if label not in colours:
            colours[label] = _free_colour(number, taken)
            taken.add(colours[label])
    return {label: colours[label] for label in labels}


def _free_colour(number: int, taken: set[Colour]) -> Colour:
    """Hues a golden angle apart are far from each other however many there are; id 0 is black."""
    turn = number
    while True:
        hue, value = turn * 0.618034 % 1, (1.0, 0.75, 0.5)[turn % 3]
        red, green, blue = (0, 0, 0) if turn == 0 else colorsys.hsv_to_rgb(hue, 0.85, value)
        colour = (round(red * 255), round(green * 255), round(blue * 255))
        if colour not in taken:
            return colour
        turn += 256


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise ModelError("segmentation needs numpy: pip install 'modelcloud[images]'") from None
    return numpy
