"""Tests of the tool that runs the tutorial."""

from tools import tutorial

PAGE = """Text.

```python
# hello.py
print("hello")
```

```console
$ python hello.py
old output
$ python -c 'import sys; \\
sys.exit("no")' || echo "exit code $?"
```
"""


def test_outputs_are_replaced_by_what_commands_print(tmp_path):
    page = tutorial.run_page(PAGE, tmp_path)
    assert page == PAGE.replace("old output", "hello").replace('$?"\n', '$?"\nno\nexit code 1\n')


def test_long_outputs_are_cut_in_the_middle(tmp_path):
    text = tutorial.run_command(f"seq {3 * tutorial.LONGEST}", tmp_path)
    assert text.startswith("1\n2\n")
    assert "\n…\n" in text
    assert text.endswith(f"\n{3 * tutorial.LONGEST}\n")
