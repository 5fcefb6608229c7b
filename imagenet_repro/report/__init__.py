"""Tables, figures and pages of finished runs."""

from imagenet_repro.storage import user

user.give_matplotlib_a_directory()
