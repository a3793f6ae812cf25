"""Names of classes to print, from files that are distributed with ImageNet.

LOC_synset_mapping.txt, synset_words.txt    n01440764 tench, Tinca tinca
words.txt                                   the same, with a tab, for all synsets of WordNet
meta.mat, or the development kit            the same, as a table of MATLAB
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from alexnet_jax.data.class_names import first_synonym, parse_synset_names
from alexnet_jax.data.sources import file_tree
from alexnet_jax.data.sources.file_table import Files
from alexnet_jax.data.sources.label_files import DEVKIT, MAX_FILE_BYTES, META, read_devkit_synsets, read_label_files

NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
"""Names of text files with the names of WordNet ids, the preferred one first."""


def find_names(files: Files, classes: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the names of classes to print, and the names of the files that they are read from.

    Args:
      files: files to search.
      classes: class names.

    Returns:
      Names in the order of the classes, or none if no file has a name for any class.

    Raises:
      UserError: if a development kit is damaged.
    """
    paths = ((index, PurePosixPath(path).name) for index, path in enumerate(files.names()))
    by_name = {name: files[index] for index, name in paths if name in NAME_FILES or name == META or DEVKIT.fullmatch(name)}
    by_name = {name: entry for name, entry in by_name.items() if entry.size <= MAX_FILE_BYTES}
    for name in NAME_FILES:
        if name in by_name:
            names = parse_synset_names(file_tree.read(by_name[name]).decode("utf-8-sig", "backslashreplace"))
            if not names.keys().isdisjoint(classes):
                return [names.get(key, key) for key in classes], {by_name[name].name}
    kits = [entry for name, entry in by_name.items() if name == META or DEVKIT.fullmatch(name)]
    for _, content in read_label_files(kits):
        names = {synset.wordnet_id: first_synonym(synset.words) for synset in read_devkit_synsets(content)}
        if any(names.get(key) for key in classes):
            return [names.get(key) or key for key in classes], {entry.name for entry in kits}
    return [], set()
