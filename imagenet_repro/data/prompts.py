"""Sentences with the names of classes, as captions of images and as the prompts of a zero-shot classifier."""

import string
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from imagenet_repro.data.tokenizers import Tokenizer
from imagenet_repro.errors import UserError

FIELDS = ("name", "")  # of a template, where the name of the class goes


def fill(template: str, name: str, key: str) -> str:
    """Return a template with the name of a class.

    Args:
      template: text in which {name} or {} is the class.
      name: of the class.
      key: of the configuration that holds the template, for messages.

    Raises:
      UserError: the template has no place for the name or several, another field, or an open brace.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UserError(f"{key}: the template {template!r} cannot be filled: {error}") from error
    if len(fields) != 1 or fields[0] not in FIELDS:
        raise UserError(
            f"{key}: the template {template!r} needs {{name}} or {{}}, the class, once and no other field, such as 'a"
            " photo of a {name}.'"
        )
    return template.format(name, name=name)


def class_tokens(
    names: Sequence[str], templates: Sequence[str], tokenizer: Tokenizer, length: int, key: str
) -> tuple[Int32[np.ndarray, "classes templates length"], int]:
    """Return the tokens of every class in every template, and the number of texts that were truncated.

    Args:
      names: of the classes, as a reader would write them.
      templates: texts in which {name} or {} is the class.
      tokenizer: of the texts.
      length: tokens of a text.
      key: of the configuration that holds the templates, for messages.

    Raises:
      UserError: there is no template, or one of them has no place for the name.
    """
    if not templates:
        raise UserError(f"{key}: at least one template is needed, such as 'a photo of a {{name}}.'")
    texts = [fill(template, name, key) for name in names for template in templates]
    tokens, n_truncated = tokenizer.encode(texts, length)
    return tokens.reshape(len(names), len(templates), length), n_truncated
