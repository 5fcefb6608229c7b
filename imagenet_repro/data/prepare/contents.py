"""What was met in a source of images, the problems of it, and the listing of a source without any."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagenet_repro.data.prepare import holdout, names
from imagenet_repro.data.prepare.listing import EXTENSIONS, MAX_IMAGE_BYTES, Image, Listing, Options
from imagenet_repro.errors import UserError

_SPLIT_NAMES = {"val": "validation", "valid": "validation"}
COMMON_SPLITS = {"train", "validation", "test"}
TOO_LARGE = f"are larger than {MAX_IMAGE_BYTES:,} bytes: no image is; remove them"


@dataclass
class Contents:
    """The images of a source, and what is wrong with it.

    Attributes:
      shape: the layout in words.
      images: with their splits and labels.
      folders: the (split, class) pairs that should hold images.
      classes: names by label where the source numbers its classes; None: the sorted names of the images' labels.
      conflicts: sentences on folders or files that contradict each other.
      misplaced: names of images that are not where the layout has them.
      belong: where images belong, for the message about misplaced ones.
      ignored: names of files that are not images.
      unreadable: names of files with the reason.
      problems: names by what is wrong with them, "are WRONG: remedy".
      rename: how a class gets another name.
      same_classes: whether every split must have every class; otherwise only `train` must.
      has_labels: whether images have labels; otherwise they have captions, and the label of each is empty.
      notes: remarks for the user.
    """

    shape: str = ""
    images: list[Image] = field(default_factory=list)
    folders: set[tuple[str, str]] = field(default_factory=set)
    classes: tuple[str, ...] | None = None
    conflicts: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    belong: str = ""
    ignored: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rename: str = "Rename the folders"
    same_classes: bool = True
    has_labels: bool = True
    notes: list[str] = field(default_factory=list)

    def set_images(self, images: Sequence[Image]) -> None:
        """Set the images, whose splits and classes are then those of the source."""
        self.images = list(images)
        self.folders |= {(image.split, image.label) for image in images}


def split_name(name: str) -> str:
    """Return tfds' name of a split: `validation` for val and valid."""
    return _SPLIT_NAMES.get(name.lower(), name)


def in_order(labels: set[str]) -> tuple[str, ...]:
    """Return labels that are whole numbers in the order of the numbers, and others in that of their characters."""
    are_numbers = all(re.fullmatch(r"\d+", label, flags=re.ASCII) for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label), label) if are_numbers else (0, label)))


def finish(contents: Contents, source: Path, options: Options, **reading: Any) -> Listing:
    """Return the listing of a source's contents, with some images held out where the options say so.

    Args:
        contents: what was met.
        source: the folder or file.
        options: holdout and seed are used.
        reading: further arguments of `Listing`, on how the images are read.

    Raises:
        UserError: the contents have problems, which the message lists, or the splits do not fit the options.
    """
    require_no_problem(contents, source)
    images = _with_splits(contents, source, options)
    if contents.ignored:
        contents.notes.append(
            f"{len(contents.ignored)} files are not images and were left out: {names.some(contents.ignored)}"
        )
    classes = contents.classes or tuple(sorted({image.label for image in images}))
    return Listing(
        source, tuple(sorted(images)), classes, tuple(contents.notes), contents.shape, options=options, **reading
    )


def require_no_problem(contents: Contents, source: Path) -> None:
    """Raise UserError, with a list of all problems of a source, if it has any."""
    checks = (_layout_problems, _class_names, _name_problems, _class_problems, _file_problems)
    if not contents.has_labels:
        checks = (_layout_problems, _name_problems, _file_problems)
    problems = [problem for check in checks for problem in check(contents)]
    if problems:
        raise cannot_prepare(source, problems)


def cannot_prepare(source: Path, problems: Sequence[str]) -> UserError:
    """Return the error of a source with some problems."""
    shown = names.printable(str(source))
    return UserError("\n".join([f"folder:{shown} cannot be prepared:", *(f"- {problem}" for problem in problems)]))


def describe(listing: Listing) -> str:
    """Return a line on how a source was understood: its layout and the numbers of its classes and images."""
    counts = Counter(image.split for image in listing.images)
    splits = ", ".join(f"{split} {count:,}" for split, count in sorted(counts.items()))
    held_out = ""
    if listing.options.holdout:
        held_out = f" ({100 * listing.options.holdout:g} % of each class held out, seed {listing.options.seed})"
    texts = f"{len(listing.classes):,} classes"
    if listing.captions is not None:
        texts = f"{sum(map(len, listing.captions.values())):,} captions"
    return (
        f"{names.printable(str(listing.source))} holds {listing.shape}: {texts}, "
        f"{len(listing.images):,} images; {splits}{held_out}"
    )


def _with_splits(contents: Contents, source: Path, options: Options) -> Sequence[Image]:
    """Return the images with a split each: the one that the source names, or by the share that is held out."""
    splits = {image.split for image in contents.images}
    if options.holdout is None:
        if "" in splits:
            command = f"python main.py prepare folder:{names.typed(source)}"
            n_classes = len({image.label for image in contents.images})
            problem = (
                f"it holds {contents.shape}, {len(contents.images):,} images of {n_classes:,} classes, and no splits"
            )
            remedy = "hold out a share of each class as validation (--holdout=0% would train on all images):"
            raise cannot_prepare(source, [f"{problem}; {remedy}\n  {command} --holdout=20%"])
        return contents.images
    if splits - {""}:
        if holdout.HELD_OUT in splits or holdout.TRAIN not in splits:
            shown = ", ".join(map(names.printable, sorted(splits)))
            raise UserError(f"--holdout divides images that have no split or train alone, and the splits are {shown}")
        kept = [image for image in contents.images if image.split != holdout.TRAIN]
        divided = [image for image in contents.images if image.split == holdout.TRAIN]
        return [*kept, *holdout.hold_out(divided, options.holdout, options.seed)]
    return holdout.hold_out(contents.images, options.holdout, options.seed)


def _layout_problems(contents: Contents) -> Iterator[str]:
    if contents.misplaced:
        misplaced = names.some(contents.misplaced)
        yield f"{len(contents.misplaced)} images are not at {contents.belong}: {misplaced}. Move them or remove them"
    elif not contents.images:
        tars = [name for name in contents.ignored if re.search(r"\.(tar|tgz|tar\.\w+)$", name.lower())]
        hint = f". Unpack tar archives first (tar -xf): {names.some(tars)}" if tars else ""
        yield f"it holds no images at {contents.belong}; known endings: {', '.join(sorted(EXTENSIONS))}{hint}"
    for split in sorted({image.split for image in contents.images} - {""}):
        if not re.fullmatch(r"[A-Za-z]\w*", split, flags=re.ASCII) or split.lower() == "all":
            shown = names.printable(split)
            yield f"'{shown}' is not a valid name of a split; rename that folder, for example to train"
    yield from contents.conflicts


def _class_names(contents: Contents) -> Iterator[str]:
    labels = {label for _, label in contents.folders} | set(contents.classes or ())
    unfit = defaultdict(list)
    for label in labels:
        if problem := names.class_problem(label):
            unfit[problem].append(label)
    for problem, affected in sorted(unfit.items()):
        yield f"{len(affected)} names of classes cannot be stored: {_quoted(affected)} {problem}. {contents.rename}"
    for group in names.lookalikes(labels):
        is_one = len(set(map(names.canonical, group))) < len(group)
        together = any(sum((split, label) in contents.folders for label in group) > 1 for split, _ in contents.folders)
        if is_one:
            escaped = ", ".join(ascii(name) for name in group)
            yield f"the classes {escaped} have the same name in other Unicode characters. {contents.rename}"
        elif not together:
            yield f"the classes {_quoted(group)} differ in letter case alone, and no split has both. {contents.rename}"


def _name_problems(contents: Contents) -> Iterator[str]:
    strange = [image.name for image in contents.images if not names.is_utf8(image.name)]
    if strange:
        yield f"{len(strange)} names of images are not UTF-8: {names.some(strange)}. Rename them"


def _quoted(labels: list[str]) -> str:
    shown = [f"'{names.printable(label)}'" for label in sorted(labels)[: names.MAX_SHOWN]]
    return ", ".join(shown) + (f" and {len(labels) - len(shown)} more" if len(labels) > len(shown) else "")


def _class_problems(contents: Contents) -> Iterator[str]:
    filled_folders = {(image.split, image.label) for image in contents.images}
    splits = {split for split, _ in filled_folders}
    unfilled = {pair for pair in contents.folders - filled_folders if pair[0] in splits | COMMON_SPLITS}
    if unfilled:
        shown = names.some(f"{split}/{label}".lstrip("/") for split, label in unfilled)
        yield f"{len(unfilled)} class folders hold no image: {shown}. Fill them or remove them"
    classes = {split: {label for other, label in filled_folders if other == split} for split in splits}
    all_classes = set().union(*classes.values())
    if not contents.same_classes:
        yield from _untrained_problems(classes, all_classes)
        return
    hint = "" if splits & COMMON_SPLITS else ". If the first folders are classes, move the images directly into them"
    for split in sorted(splits):
        missing = all_classes - classes[split] - {label for _, label in unfilled}
        if missing:
            yield (
                f"split {split!r} lacks {len(missing)} of the {len(all_classes)} classes that other splits have: "
                f"{names.some(missing)}. All splits need the same class folders; remove a split that has others{hint}"
            )


def _untrained_problems(classes: dict[str, set[str]], all_classes: set[str]) -> Iterator[str]:
    """Yield a sentence where a class is evaluated and never trained."""
    untrained = all_classes - classes.get(holdout.TRAIN, all_classes)
    if untrained:
        yield (
            f"split 'train' lacks {len(untrained)} of the {len(all_classes)} classes that other splits have: "
            f"{names.some(untrained)}. Add images of them to train, or remove these classes"
        )


def _file_problems(contents: Contents) -> Iterator[str]:
    duplicates = [name for name, count in Counter(image.name for image in contents.images).items() if count > 1]
    if duplicates:
        shown = set(sorted(duplicates)[: names.MAX_SHOWN])
        archives = sorted({str(image.archive) for image in contents.images if image.name in shown and image.archive})
        places = f", in {', '.join(map(names.printable, archives))}" if archives else ""
        yield f"{len(duplicates)} file names occur more than once{places}: {names.some(duplicates)}. Keep one"
    if contents.unreadable:
        yield f"{len(contents.unreadable)} files or folders cannot be read: {names.some(contents.unreadable)}"
    for problem, affected in sorted(contents.problems.items()):
        what, _, remedy = problem.partition(": ")
        yield f"{len(affected)} files {what}: {names.some(affected)}. {remedy[:1].upper()}{remedy[1:]}"
    empty = [image.name for image in contents.images if image.size == 0]
    if empty:
        yield f"{len(empty)} image files are empty (0 bytes): {names.some(empty)}. Copy them again or remove them"
