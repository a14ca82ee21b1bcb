"""Rows with any number of images: a column may hold a list for each row, a single image, or nothing."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.data.formats import Message
from hpsearch.data.images import NO_IMAGE, CheckedImage, RowImages
from hpsearch.jobs import Tell
from hpsearch.spec.rows import PLACEHOLDER
from hpsearch.spec.tasks import Images

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH = 1000


class ImageLists:
    """The images of each row of a table; each image is checked by `RowImages`."""

    def __init__(
        self, table: Dataset, column: str, folder: Path, store: Path, tell: Tell, *, groups_lookalikes: bool = False
    ) -> None:
        self._starts: array[int] | None = None
        """Where each row begins and ends in a table of images only; None: each row has one value."""
        if _holds_lists(table, column):
            table, counts = _flattened(table, column)
            self._starts = array("L", [0, *accumulate(counts)])
        self._images = RowImages(table, column, folder, store, tell, self._row_of, groups_lookalikes=groups_lookalikes)
        self.notes = tuple(self._images.notes)
        """Notes for the person about the images."""

    def of(self, position: int) -> tuple[CheckedImage, ...] | str:
        """The images of the row at `position`, in its order, or why they can't be used."""
        if self._starts is None:
            image = self._images.of(position)
            return () if image == NO_IMAGE else image if isinstance(image, str) else (image,)
        places = range(self._starts[position], self._starts[position + 1])
        found = [self._images.of(place) for place in places]
        images = tuple(image for image in found if isinstance(image, CheckedImage))
        problems = [image for image in found if isinstance(image, str)]
        return problems[0] if problems else images

    def check_any_found(self) -> None:
        """Raises FieldError where images are named and not one of them is found."""
        self._images.check_any_found()

    def _row_of(self, place: int) -> int:
        return place if self._starts is None else bisect(self._starts, place) - 1


def image_names(value: Any) -> list[str | None]:
    """The names of a row's images; None for a value that is no name."""
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    return [name if isinstance(name, str) else None for name in values]


def images_mistake(messages: Sequence[Message], num_images: int, allowed: Images) -> str | None:
    """What is wrong with a row of `num_images` images, whose `messages` may mark the images' positions."""
    if allowed == "one" and num_images != 1:
        return "several images" if num_images else NO_IMAGE
    asked = [message["content"] for message in messages if message["role"] == "user"]
    num_places = sum(text.count(PLACEHOLDER) for text in asked)
    if num_images and not asked:
        return "images, and no message of a user that they belong to"
    if num_places in (0, num_images):
        return None
    if not num_images:
        return "image placeholder without an image"
    return "more images than placeholders" if num_images > num_places else "more image placeholders than images"


def _holds_lists(table: Dataset, column: str) -> bool:
    import datasets
    from datasets.features import Json

    return isinstance(table.features[column], datasets.List | datasets.LargeList | Json)


def _flattened(table: Dataset, column: str) -> tuple[Dataset, list[int]]:
    """A table with one image per row, and the number of images of each row of `table`. No image is copied."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets.features import Json

    if isinstance(table.features[column], Json):  # a file with a name in one row and a list in another
        names = [image_names(value) for value in table[column]]
        features = datasets.Features({column: datasets.Value("string")})
        return datasets.Dataset.from_dict({column: list(chain.from_iterable(names))}, features=features), list(
            map(len, names)
        )
    chunks: list[pa.Array] = []
    for batch in table.select_columns([column]).with_format("arrow").iter(_BATCH):
        chunks += batch.column(column).chunks
    counts = [count or 0 for chunk in chunks for count in pc.list_value_length(chunk).to_pylist()]
    feature = table.features[column].feature
    features = datasets.Features({column: feature})
    values = pa.chunked_array([pc.list_flatten(chunk) for chunk in chunks], features.arrow_schema.field(0).type)
    return datasets.Dataset(pa.table({column: values}), info=datasets.DatasetInfo(features=features)), counts
