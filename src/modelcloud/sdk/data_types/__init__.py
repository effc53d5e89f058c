"""The data types of inputs, outputs and options; users import them from `modelcloud.data_types`.

Must never: pull in numpy or Pillow when imported.
"""

from modelcloud.sdk.data_types.base import MISSING, TYPES, DataType, to_builtin
from modelcloud.sdk.data_types.containers import array, vector
from modelcloud.sdk.data_types.declare import as_type
from modelcloud.sdk.data_types.files import directory, file, set_upload_dir
from modelcloud.sdk.data_types.images import image
from modelcloud.sdk.data_types.label_maps import segmentation
from modelcloud.sdk.data_types.places import image_bounding_box, image_landmarks, image_point
from modelcloud.sdk.data_types.scalars import any, boolean, category, number, text

__all__ = [
    "MISSING",
    "TYPES",
    "DataType",
    "any",
    "array",
    "as_type",
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
    "set_upload_dir",
    "text",
    "to_builtin",
    "vector",
]
