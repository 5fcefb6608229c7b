"""Records that cannot be decoded: the number that a run accepts, and the messages that name them."""

from collections.abc import Callable, Iterable

from imagenet_repro.config import Data
from imagenet_repro.data.batch import Batch
from imagenet_repro.data.decode import DecodeError, decode
from imagenet_repro.data.sources import Split
from imagenet_repro.errors import UserError

_MAX_NAMED = 20  # records that a message names


class BadRecords:
    """The records of a split that could not be decoded, each counted once however often it was drawn.

    Every process counts the records of its own batches; `data.max_bad_share` is a share of the split's records.

    Attributes:
        names: the ids of the records, in the order in which they were first drawn.
    """

    def __init__(
        self, split: Split, data: Data, report: Callable[[str], None] | None = None, known: Iterable[int] = ()
    ):
        """Start to count records of `split`.

        Args:
            split: the records.
            data: max_bad_share is used.
            report: called with one line for each record when it is first drawn.
            known: indices of records that the run drew before it was resumed.
        """
        self.names: list[str] = []
        self._known = set(known)
        self._split = split
        self._max_bad = max_bad_records(split, data)
        self._report = report
        self._seen: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def indices(self) -> list[int]:
        """The indices of all records that the run could not decode, also of those known from the start, sorted."""
        return sorted(self._known | self._seen.keys())

    def update(self, batch: Batch) -> list[tuple[int, str]]:
        """Count the undecodable records of a batch; return index and id of those that are new to the run."""
        new = []
        for index in batch["replaced"][batch["replaced"] >= 0].tolist():
            if index in self._seen:
                continue
            self._seen[index] = None
            self.names.append(self._split.records[index].id)
            if index not in self._known:
                new.append((index, self.names[-1]))
            if self._report:
                self._report(f"cannot decode {_describe(self._split, index)}")
        return new

    def check(self) -> None:
        """Raise `UserError`, naming the records, where they are more than `data.max_bad_share` of the split."""
        if len(self) > self._max_bad:
            raise too_many_error(self._split, self._seen, self._max_bad)


def max_bad_records(split: Split, data: Data) -> int:
    """Return the number of undecodable records that a run accepts."""
    return int(data.max_bad_share * split.num_examples)


def too_many_error(split: Split, indices: Iterable[int], max_bad: int) -> UserError:
    """Return the error of a split with more undecodable records than `max_bad`; indices are taken modulo its size."""
    bad = [index % split.num_examples for index in indices]
    names = [f"  {_describe(split, index)}" for index in bad[:_MAX_NAMED]]
    if len(bad) > len(names):
        names.append(f"  … and {len(bad) - len(names)} more")
    return UserError(
        f"{len(bad)} of the {split.num_examples} records of {split.name} {split.split} cannot be decoded; "
        f"data.max_bad_share allows {max_bad}. Repair and prepare them again, or allow more:\n" + "\n".join(names)
    )


def _describe(split: Split, index: int) -> str:
    """Return a record's id and the reason why it cannot be decoded."""
    record = split.records[index]
    try:
        decode(record.image)
    except DecodeError as error:
        return f"{record.id}: {error}"
    return f"{record.id}: can be decoded now"
