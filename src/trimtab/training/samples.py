"""The samples that a job trains on and is measured on, from its prepared folder. No torch."""

from __future__ import annotations

from pathlib import Path

from trimtab.data.frame import frame_of
from trimtab.data.packing import cut_rows
from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages
from trimtab.data.samples.base import Samples
from trimtab.data.samples.masked import MaskedWindows
from trimtab.data.samples.pictures import Pictures
from trimtab.data.samples.texts import LabelledTexts
from trimtab.data.samples.windows import HeldOutWindows, Windows
from trimtab.data.splits import SplitName
from trimtab.spec.errors import DataError
from trimtab.training.job import TrainJob


def train_samples(job: TrainJob) -> Samples:
    """Raises `DataError` if there are none."""
    if job.task == "text-generation":
        data = Prepared.load(Path(job.data))
        return Windows(data.tokens("train"), job.sequence_length, data.unlearned("train"))
    return _samples(job, "train")


def held_out_samples(job: TrainJob, *, multiple: int) -> Samples | None:
    """Those of the validation split; None if it holds none. A decoder's sequences are lengthened to a `multiple`."""
    if job.task == "image-classification":
        held = PreparedImages.load(Path(job.data)).record.images["validation"] > 0
        return _samples(job, "validation") if held else None
    data = Prepared.load(Path(job.data))
    if job.task == "text-classification":
        return _samples(job, "validation") if data.record.documents["validation"] else None
    if data.record.tokens["validation"] <= job.sequence_length:
        return None
    if job.task == "text-generation":
        unlearned = data.unlearned("validation")
        return HeldOutWindows(
            data.windows("validation", job.sequence_length)[0],
            multiple,
            None if unlearned is None else cut_rows(unlearned, job.sequence_length),
        )
    return _samples(job, "validation")


def _samples(job: TrainJob, split: SplitName) -> Samples:
    if job.task == "image-classification":
        images = PreparedImages.load(Path(job.data))
        return Pictures(images.pixels(split), images.labels(split))
    data = Prepared.load(Path(job.data))
    if data.record.unlearned[split]:
        raise DataError(
            f"messages of weight 0 are for text-generation, and this is {job.task}.",
            where="data",
            remedy="Take the weights out, or the messages that have them.",
        )
    frame, tokens = frame_of(data.tokenizer_folder), data.tokens(split)
    if job.task == "text-classification":
        offsets, labels = data.offsets(split), data.labels(split)
        return LabelledTexts(tokens, offsets, labels, frame, length=job.sequence_length)
    return MaskedWindows(tokens, frame, length=job.sequence_length, vocabulary=data.vocabulary, seed=job.seed)
