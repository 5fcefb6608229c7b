"""Texts about classes for zero-shot classification: names of the classes, and templates that contain a name.

Accuracy depends on both. CLIP's names of ImageNet's classes raised the top-1 accuracy of ViT-B/32 by 1.5 points over
the default names (OpenAI's notebook `Prompt_Engineering_for_ImageNet`), and its 80 templates by 3.5 points over "a
photo of a {}." alone (Radford et al. 2021, sec. 3.1.4). Both lists are read from the source of the package
`open-clip-torch` where it is installed; nothing of the package is imported or run.
"""

import ast
import dataclasses
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagenet_repro.errors import UserError
from imagenet_repro.scoring import class_names, sets, wordnet
from imagenet_repro.storage import user

PLACE = "{}"  # of the class name in a template
SINGLE = "a photo of a {}."  # CLIP's template where there is one (sec. 3.1.4)
PACKAGE = "open-clip-torch"
_NUMBERS = ("80", "7")  # of CLIP's templates, and of those of its notebook


@dataclasses.dataclass(frozen=True)
class PackagedLists:
    """CLIP's lists in the package `open-clip-torch`.

    Attributes:
      names: of ImageNet's classes in the order of their WordNet ids.
      templates: by their number, "80" and "7".
    """

    names: tuple[str, ...]
    templates: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class ClassTexts:
    """The classes of a zero-shot classifier, and a text for each.

    Attributes:
      classes: as the data set or ImageNet calls them.
      texts: their names in prompts.
      source: where the texts are from, in words.
      warning: what the choice may cost; empty: nothing is known.
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    source: str
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Templates:
    """The templates of prompts; attributes as of `ClassTexts`."""

    texts: tuple[str, ...]
    source: str
    warning: str = ""


def packaged_lists() -> PackagedLists | None:
    """Return CLIP's lists from the package `open-clip-torch`; None where it is not installed or has no such lists."""
    spec = importlib.util.find_spec("open_clip")  # imports nothing
    path = Path(spec.origin).with_name("zero_shot_metadata.py") if spec and spec.origin else None
    if path is None or not path.is_file():
        return None
    return parse_lists(path.read_text(encoding="utf-8"))


def parse_lists(source: str) -> PackagedLists | None:
    """Return the lists in the source of `open_clip.zero_shot_metadata`; None where one is not as expected."""
    values = {
        target.id: node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    try:
        names = tuple(ast.literal_eval(values["IMAGENET_CLASSNAMES"]))
        tables = {"80": values["OPENAI_IMAGENET_TEMPLATES"], "7": values["SIMPLE_IMAGENET_TEMPLATES"]}
        templates = {number: tuple(map(_template, _elements(table))) for number, table in tables.items()}
    except (KeyError, ValueError, TypeError):
        return None
    return PackagedLists(names, templates)


def _elements(node: ast.expr) -> list[ast.expr]:
    if not isinstance(node, ast.Tuple | ast.List):
        raise ValueError("no list")
    return node.elts


def _template(node: ast.expr) -> str:
    """Return the template that a function `lambda c: f'a photo of a {c}.'` fills; ValueError for another one."""
    if not isinstance(node, ast.Lambda) or not isinstance(node.body, ast.JoinedStr):
        raise ValueError("no function from a name to a text")
    return "".join(str(part.value) if isinstance(part, ast.Constant) else PLACE for part in node.body.values)


def choose_class_texts(path: str, data_classes: Sequence[str], packaged: PackagedLists | None) -> ClassTexts:
    """Return the classes of a zero-shot classifier for a data set, and their names in prompts.

    Images of some of ImageNet's classes are classified among all 1,000, as other systems do, where names of all are
    known.

    Args:
      path: of a file: a text of one name in each line, or a `.json` with a list, or with an object from the data
        set's classes (or WordNet ids) to names; empty: CLIP's names for ImageNet's classes where the package is
        installed, else the data set's own.
      data_classes: names of the data set's classes by index.
      packaged: CLIP's lists.

    Raises:
      UserError: the file cannot be read, has an empty name, or does not cover the classes; or the
        data set only numbers its classes.
    """
    has_names = class_names.has_names(data_classes)
    is_imagenet = sets.has_imagenet_classes(data_classes) or (len(data_classes) == sets.CLASSES and not has_names)
    imagenet = sets.imagenet_wnids() if is_imagenet else ()
    if path:
        return _from_file(path, data_classes, imagenet, packaged)
    if imagenet and packaged is not None:
        return ClassTexts(imagenet, packaged.names, f"CLIP's, from {PACKAGE}")
    if imagenet:
        warning = (
            "the class names are WordNet's; CLIP's own list raised ViT-B/32 by 1.5 points on ImageNet. Install"
            f" {PACKAGE}, which has it, or name another with --classnames=FILE"
        )
        return ClassTexts(imagenet, tuple(wordnet.readable_names(imagenet)), "WordNet's", warning)
    if not has_names:
        raise UserError(
            f"the data set numbers its {len(data_classes):,} classes and does not name them; add --classnames=FILE,"
            " a name in each line"
        )
    texts = tuple(name.replace("_", " ").strip() for name in wordnet.readable_names(data_classes))
    _check_texts(texts, "the data set")
    return ClassTexts(tuple(data_classes), texts, "the data set's own")


def _from_file(
    path: str, data_classes: Sequence[str], imagenet: Sequence[str], packaged: PackagedLists | None
) -> ClassTexts:
    content = _read(path, "--classnames")
    candidates = [classes for classes in (imagenet, data_classes) if classes]
    for classes in candidates:
        texts = _cover(content, classes)
        if texts:
            _check_texts(texts, path)
            warning = _difference(texts, path, packaged) if len(classes) == len(imagenet) else ""
            return ClassTexts(tuple(classes), texts, f"of {path}", warning)
    if isinstance(content, dict):
        missing = [name for name in data_classes if name not in content]
        raise UserError(
            f"--classnames={path} has no name for {len(missing):,} of {len(data_classes):,} classes, the first"
            f" '{missing[0]}'; add them"
        )
    raise UserError(
        f"--classnames={path} has {len(content):,} names and the data set {len(data_classes):,} classes; write one"
        " name for each class, in their order, or a JSON object from classes to names"
    )


def _cover(content: list[str] | dict[str, str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each class; nothing where some have none."""
    if isinstance(content, dict):
        return tuple(content[name] for name in classes) if set(classes) <= content.keys() else ()
    return tuple(content) if len(content) == len(classes) else ()


def _check_texts(texts: Sequence[str], owner: str) -> None:
    for index, text in enumerate(texts):
        if not text.strip():
            raise UserError(f"{owner}: the name of class {index} is empty; a prompt needs one")


def _difference(texts: Sequence[str], path: str, packaged: PackagedLists | None) -> str:
    """Return a warning about names of ImageNet's classes that are not CLIP's; empty where they are, or unknown."""
    own, theirs = "WordNet's", wordnet.readable_names(sets.imagenet_wnids())
    if packaged is None:
        return (
            f"{path} has {own} class names; CLIP's own list raised ViT-B/32 by 1.5 points on ImageNet"
            if list(texts) == theirs
            else ""
        )
    differ = [(ours, clips) for ours, clips in zip(texts, packaged.names, strict=True) if ours != clips]
    if not differ:
        return ""
    return (
        f"{len(differ):,} of {len(texts):,} class names of {path} are not CLIP's, the first '{differ[0][0]}' in place"
        f" of '{differ[0][1]}'; its own list raised ViT-B/32 by 1.5 points on ImageNet over the default names"
    )


def choose_templates(path: str, packaged: PackagedLists | None) -> Templates:
    """Return the templates of prompts.

    Args:
      path: of a file, a text with one template in each line or a `.json` with a list; "80" or "7" for CLIP's or those
        of its notebook, from the package; empty: CLIP's 80 where the package is installed, else one.
      packaged: CLIP's lists.

    Raises:
      UserError: the file cannot be read or a template does not have one place for the name, or the package is missing.
    """
    if path in _NUMBERS and packaged is None:
        raise UserError(f"--templates={path} reads the package {PACKAGE}, which is not installed; name a file")
    if packaged is not None and path in ("", *_NUMBERS):
        number = path or "80"
        texts, source = packaged.templates[number], f"CLIP's {number}, from {PACKAGE}"
    elif path:
        texts, source = _templates_of_file(path), f"of {path}"
    else:
        texts, source = (SINGLE,), f"'{SINGLE}'"
    return Templates(texts, source, _ensembling_warning(texts, packaged))


def _templates_of_file(path: str) -> tuple[str, ...]:
    content = _read(path, "--templates")
    if isinstance(content, dict):
        raise UserError(f"--templates={path} is a JSON object; write a list of templates, such as '{SINGLE}'")
    wrong = next((text for text in content if text.count(PLACE) != 1), None)
    if wrong is not None:
        raise UserError(
            f"--templates={path}: '{wrong[:60]}' has {wrong.count(PLACE)} places for a class name; write one {PLACE},"
            f" as in '{SINGLE}'"
        )
    return tuple(content)


def _ensembling_warning(texts: Sequence[str], packaged: PackagedLists | None) -> str:
    if len(texts) > 1:
        return ""
    advice = "--templates=80 takes it" if packaged is not None else f"install {PACKAGE}, which has it"
    missing = f", {len(set(packaged.templates['80']) - set(texts))} of them not given here," if packaged else ""
    return (
        f"a single template, '{texts[0]}', and no ensemble: CLIP's list of 80{missing} raised its accuracy on ImageNet"
        f" by 3.5 points; {advice}"
    )


def fill(texts: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return the prompts, all of the first class first."""
    return [template.replace(PLACE, text) for text in texts for template in templates]


def _read(path: str, option: str) -> list[str] | dict[str, str]:
    """Return the lines of a text file, or the list or object of a `.json`; at least one entry."""
    try:
        text = user.expand(path).read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.endswith(".json") else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{option}={path} cannot be read: {reason}; write one entry in each line") from error
    while isinstance(content, list) and content and not str(content[-1]).strip():
        content.pop()  # empty lines at the end
    entries = list(content.values()) if isinstance(content, dict) else content
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{option}={path} has no texts, or something else among them; write one text in each line")
    empty = next((index for index, entry in enumerate(entries, 1) if not entry.strip()), None)
    if empty is not None:
        raise UserError(f"{option}={path}: entry {empty} is empty; write a text, or leave the line out")
    return content
