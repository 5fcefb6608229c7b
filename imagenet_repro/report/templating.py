"""HTML from the templates in `report/templates/`, in which every value is escaped.

Nothing in `report` writes HTML by hand: names of systems, classes and images come from users and from data sets, and
autoescaping keeps them text.
"""

import functools
from typing import Any

import jinja2
from markupsafe import Markup


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("imagenet_repro.report"),
        autoescape=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(template: str, **values: Any) -> Markup:
    """Return a template as HTML, with every value escaped that is not `Markup` already.

    Args:
      template: name of the file below `templates/`.
      **values: the variables that the template reads; a missing one is an error.
    """
    return Markup(_environment().get_template(template).render(**values))
