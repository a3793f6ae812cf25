"""Names of classes to print, and the classes of ILSVRC.

A class is identified by its name in the source, which is a WordNet id in ImageNet and its relatives. People read another name,
which comes from the source or, for the WordNet ids of ILSVRC, from `ilsvrc2012.txt`.

Line i of that file has the WordNet id and the name of the class with ILSVRC2012_ID i in the development kit. With these numbers,
the kit's labels of the 50,000 validation images agree with the WordNet ids of the same images. The name is the first synonym in
ILSVRC's LOC_synset_mapping.txt, or all of them where another class has the same first one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

WORDNET_ID = re.compile(r"n\d{8}")
MIN_SAME = 0.95
"""Fraction of the class names in which a list of ILSVRC's classes must agree with ours; copies of the list differ in a few."""


@cache
def ilsvrc_names() -> Mapping[str, str]:
    """Return the names of ILSVRC's 1,000 classes by WordNet id, ordered by ILSVRC2012_ID, from 1."""
    lines = (files("alexnet_jax.data") / "ilsvrc2012.txt").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def printed_names(classes: Sequence[str], display_names: Sequence[str] = ()) -> list[str]:
    """Return the names of classes to print, all different.

    Args:
      classes: class names.
      display_names: names to print, in the same order, if there are any; otherwise ILSVRC's classes have their built-in names and
        others their class names.

    Examples:
      >>> printed_names(["n02391049", "cat"])
      ['zebra', 'cat']
      >>> printed_names(["n1", "n2", "n3"], ["crane", "crane", "heron"])
      ['crane (n1)', 'crane (n2)', 'heron']
    """
    names = list(display_names) or [ilsvrc_names().get(name, name) for name in classes]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({key})" for key, name in zip(classes, names, strict=True)]


def first_synonym(synonyms: str) -> str:
    """Return the first of several names that are separated by commas, as in ImageNet's lists of names."""
    return synonyms.split(",")[0].strip() or synonyms


def parse_synset_names(text: str) -> dict[str, str]:
    """Return the names by WordNet id in LOC_synset_mapping.txt, words.txt or synset_words.txt; other lines are ignored.

    Examples:
      >>> parse_synset_names("n01440764 tench, Tinca tinca")
      {'n01440764': 'tench'}
    """
    rows = (line.split(None, 1) for line in text.splitlines())
    return {row[0]: first_synonym(row[1]) for row in rows if len(row) == 2 and WORDNET_ID.fullmatch(row[0])}


def ilsvrc_classes(names: Sequence[str]) -> list[str] | None:
    """Return the WordNet ids of ILSVRC's classes if these are their names in the usual order, by WordNet id; otherwise None."""
    known = ilsvrc_names()
    wordnet_ids = sorted(known)
    if len(names) != len(wordnet_ids):
        return None
    same = sum(first_synonym(known[key]) == first_synonym(name) for key, name in zip(wordnet_ids, names, strict=True))
    return wordnet_ids if same >= MIN_SAME * len(names) else None


def ilsvrc_numbers(classes: Sequence[str]) -> list[int] | None:
    """Return the ILSVRC2012_ID of each class, from 1 to 1,000; None if a class is not one of ILSVRC's WordNet ids.

    Examples:
      >>> ilsvrc_numbers(["n01440764", "n02391049"]), ilsvrc_numbers(["zebra"])
      ([449, 80], None)
    """
    numbers = {key: number for number, key in enumerate(ilsvrc_names(), 1)}
    return None if any(name not in numbers for name in classes) else [numbers[name] for name in classes]


def wordnet_ids_of(files: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Return the WordNet id of each label, if the names of its files begin with one, as those of ImageNet do.

    Args:
      files: label and file name of each image.

    Returns:
      WordNet ids by label; empty if a file has none, a label has several, or labels share one.
    """
    found: dict[int, str] = {}
    for label, name in files:
        match = WORDNET_ID.match(name)
        if match is None or found.setdefault(label, match[0]) != match[0]:
            return {}
    return found if len(set(found.values())) == len(found) else {}
