"""The tries of the benchmark: each is a row of a file of JSON lines, and one whose row is there is not repeated."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.fault_parts import outcome, warm


@dataclasses.dataclass(frozen=True)
class Reference:
    """An unharmed run: its seconds, its operations, its numbers by name, and the names of its files."""

    seconds: float
    operations: list[str]
    numbers: dict[str, str]
    files: list[str]


class Bench:
    """Where runs and rows are, and how much time is left.

    Args:
      folder: the directory of the runs; a run is removed once nothing was wrong with it.
      rows: the file of JSON lines.
      seconds: after so many seconds no further try begins.
    """

    def __init__(self, folder, rows, seconds):
        self.folder, self.data, self._file = Path(folder), Path(folder) / "data", Path(rows)
        self._end, self._references = time.monotonic() + seconds, {}
        self._commit = _commit()
        self.rows = (
            [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
            if self._file.exists()
            else []
        )

    def tries(self, part, names):
        """Yield the names of the tries of a part that have no row, and show how far the part is."""
        done = {row["name"] for row in self.rows if row["part"] == part}
        names = list(names)
        missing = [name for name in names if name not in done]
        began = time.monotonic()
        for number, name in enumerate(missing):
            if time.monotonic() > self._end:
                print(f"{part}: {len(missing) - number} tries are left; the same command continues", flush=True)
                return
            yield name
            each = (time.monotonic() - began) / (number + 1)
            left = each * (len(missing) - number - 1)
            broken = sum(row["part"] == part and bool(row["broken"]) for row in self.rows)
            print(
                f"{part} {len(names) - len(missing) + number + 1}/{len(names)}: {name}, {each:.1f} s a try,"
                f" {left / 60:.1f} min left, {broken} broken",
                flush=True,
            )

    def record(self, part, name, broken, **more):
        """Write the row of a try; `broken` is a list of sentences, empty if all was right."""
        row = {"part": part, "name": name, "broken": broken, "commit": self._commit} | more
        self.rows.append(row)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if broken:
            print(f"{part} {name}: {'; '.join(broken)}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def workdir(self, part, name):
        """Yield a new workdir and the list of what broke; the run is kept if something did."""
        path = self.folder / part / name.replace(" ", "_").replace("/", "_")
        shutil.rmtree(path, ignore_errors=True)
        broken = []
        yield path, broken
        if not broken:
            for one in (path, *path.parent.glob(f"{path.name}.*")):
                shutil.rmtree(one) if one.is_dir() else one.unlink()

    def train(self, kind, workdir, *, overrides=(), **options):
        """Run or resume a run; if it ends with code 0, its numbers are beside its workdir (`numbers`)."""
        target = f"{workdir}.numbers"
        arguments = [*warm.train_arguments(kind, self.data, workdir), *overrides]
        return warm.start(arguments, workdir, then=lambda: warm.dump(target, outcome.describe(workdir)), **options)

    def reference(self, kind):
        """Return an unharmed run of a kind at this commit, which is made once."""
        file = self.folder / "unharmed" / f"{kind} {self._commit}.json"
        if kind not in self._references:
            if not file.exists():
                warm.dump(file, dataclasses.asdict(self._run_unharmed(kind)))
            self._references[kind] = Reference(**warm.load(file))
        return self._references[kind]

    def _run_unharmed(self, kind):
        workdir = self.folder / "unharmed" / kind
        for _ in range(2):  # the first one compiles
            shutil.rmtree(workdir, ignore_errors=True)
            ended = self.train(kind, workdir)
            if ended.code:
                sys.exit(f"the unharmed run failed:\n{ended.output}")
        return Reference(ended.seconds, ended.operations, numbers(workdir), sorted(outcome.files(workdir)))

    def compare(self, kind, workdir):
        """Return what is wrong with a run that has ended with code 0, as sentences."""
        reference = self.reference(kind)
        files = set(reference.files)
        wrong = outcome.differences(numbers(workdir), reference.numbers)
        broken = [f"{len(wrong)} numbers differ, such as {wrong[0]}"] if wrong else []
        if left := sorted(outcome.files(workdir) - files):
            broken.append(f"files left over: {', '.join(left[:4])}")
        if missing := sorted(files - outcome.files(workdir)):
            broken.append(f"files missing: {', '.join(missing[:4])}")
        return broken

    def finish(self, kind, workdir):
        """Run the same command until it is finished, and return what is wrong."""
        for _ in range(4):
            ended = self.train(kind, workdir)
            if ended.code == 0:
                return self.compare(kind, workdir)
            if ended.code not in outcome.EXIT_CODES:
                return [f"exit code {ended.code} after a resume: {ended.message}"]
        return ["not finished after four resumes"]


def _commit():
    """Return the commit of this repository, short."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=warm.FOLDER, capture_output=True, encoding="utf-8", check=False).stdout.strip()


def numbers(workdir):
    """Return the numbers of a finished run."""
    return warm.load(f"{workdir}.numbers")
