"""Write the table of nouns that `imagenet_repro/scoring/wordnet.py` reads, from the `data.noun` of WordNet 3.0.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base*.deb wordnet        # Debian's package, version 3.0
    python tools/wordnet_table.py wordnet/usr/share/wordnet/data.noun

ImageNet's ids are offsets into that file, so no other version of WordNet can be used. Each noun becomes a line of four
columns, separated by tabs: its id; the ids of its hypernyms (pointer `@`); the ids of the nouns that it is an instance
of (`@i`, for a named thing such as a city); its words. Ids are separated by a space, words by a comma and a space. The
format of `data.noun` is in WordNet's manual, wndb(5).
"""

import argparse
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "imagenet_repro" / "scoring" / "wordnet.tsv.gz"
NOUNS = 82_115  # in WordNet 3.0, by its manual wnstats(7)


def main():
    """Read the nouns, check that they are those of version 3.0, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data.noun of WordNet 3.0")
    with parser.parse_args().data.open(encoding="ascii") as file:
        lines = list(table(file))
    if len(lines) != NOUNS:
        parser.error(f"{len(lines):,} nouns, where WordNet 3.0 has {NOUNS:,}")
    TABLE.write_bytes(gzip.compress("".join(lines).encode("ascii"), mtime=0))  # the same file each time


def table(data: Iterable[str]) -> Iterator[str]:
    """Return the lines of the table from those of `data.noun`, whose copyright notice begins with spaces."""
    return (_line(line.partition(" | ")[0].split()) for line in data if not line.startswith(" "))


def _line(fields: list[str]) -> str:
    """Return the line of a noun.

    Its fields are offset, file, type, number of words in hexadecimal, (word, sense) pairs, number of pointers and
    pointers.
    """
    words_end = 4 + 2 * int(fields[3], 16)
    words = (word.replace("_", " ") for word in fields[4:words_end:2])
    pointers = fields[words_end + 1 :]
    of_each = list(zip(pointers[::4], pointers[1::4], strict=True))
    kinds, instance_of = ([f"n{offset}" for kind, offset in of_each if kind == sign] for sign in ("@", "@i"))
    return "\t".join((f"n{fields[0]}", " ".join(kinds), " ".join(instance_of), ", ".join(words))) + "\n"


if __name__ == "__main__":
    main()
