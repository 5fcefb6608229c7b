"""Tables and pictures of several runs."""
