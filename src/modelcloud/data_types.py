"""The data types as users import them: `from modelcloud.data_types import text, number`.

Must never: hold more than names; the types live in `modelcloud.sdk.data_types`.
"""

from modelcloud.sdk.data_types import (
    any,
    array,
    boolean,
    category,
    directory,
    file,
    image,
    image_bounding_box,
    image_landmarks,
    image_point,
    number,
    segmentation,
    text,
    vector,
)

__all__ = [
    "any",
    "array",
    "boolean",
    "category",
    "directory",
    "file",
    "image",
    "image_bounding_box",
    "image_landmarks",
    "image_point",
    "number",
    "segmentation",
    "text",
    "vector",
]
