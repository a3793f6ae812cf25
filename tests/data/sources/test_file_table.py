"""Tests of the table of files, of the headers of archives, and of the memory that a listing takes."""

import io
import os
import random
import tarfile
import tracemalloc

import pytest

from alexnet_jax.data.sources.file_table import Entry, FileTable
from alexnet_jax.data.sources.file_tree import list_files
from alexnet_jax.data.sources.tar_headers import FastTarInfo
from tests.data.sources.archives import flip_bit, make_tar, open_source, write_files

FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def test_rows_are_sorted_kept_and_read_as_entries():
    rng = random.Random(0)
    table = FileTable()
    folders = [table.add_folder(name, path, modified) for name, path, modified in (("a/", "/x/a", None), ("b-/", "/x/b.tar", 7))]
    expected = []
    for number in range(50):
        name, size, position = f"{rng.choice(['', 'é', '-'])}{number}", rng.randrange(2**32), rng.randrange(2**40)
        folder = rng.choice(folders)
        table.add(folder, name, size, position)
        table.labels[number] = size % 9
        on_disk, archived = (
            Entry(f"a/{name}", f"/x/a/{name}", 0, size, position),
            Entry(f"b-/{name}", "/x/b.tar", position, size, 7),
        )
        expected.append(archived if folder else on_disk)
    assert list(table) == expected
    table.keep([12, 11, 40], 10)
    expected[10:] = [expected[12], expected[11], expected[40]]
    assert list(table) == expected
    assert table.sort(5) is None
    expected[5:] = sorted(expected[5:])
    assert list(table) == expected
    table.sort()
    assert list(table) == sorted(expected)
    assert list(table.names(3)) == [entry.name for entry in sorted(expected)[3:]]
    assert [*table.labels] == [entry.size % 9 for entry in table]
    table.add(*(folders[0], table[0].name.removeprefix("a/"), 1, 1))
    same = table.sort()
    assert same
    assert table[same[0]].name == table[same[1]].name


def test_names_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_files(tmp_path / "x", {name: b"on disk", "y.tar": make_tar({name: b"archived"})})
    entries = list(list_files(tmp_path / "x").files)
    assert [(entry.name, entry.path) for entry in entries] == [
        (r"caf\xe9.png", str(tmp_path / "x" / name)),
        (r"y/caf\xe9.png", str(tmp_path / "x" / "y.tar")),
    ]


def test_files_are_sorted_by_their_names_in_the_tree(tmp_path):
    on_disk = dict.fromkeys(("a/1", "a-b/1", "a.c", "b.c/1", "b/2/x", "b/2-/x", "c/1"), b"1")
    archives = {"a-.tar": make_tar({"2": b"2", "1": b"1"}), "c.tar": make_tar({"0": b"0", "2/3": b"3"})}
    names = [entry.name for entry in list_files(write_files(tmp_path / "x", on_disk | archives)).files]
    assert names == sorted([*on_disk, "a-/1", "a-/2", "c/0", "c/2/3"])


def members(data, tarinfo):
    """Return the members of an archive, and where and how reading it ends."""
    found = []
    try:
        archive = tarfile.open(fileobj=io.BytesIO(data), mode="r:", tarinfo=tarinfo)  # noqa: SIM115
        while member := archive.next():
            found.append((member.name, member.type, member.size, member.offset_data, member.linkname, member.issparse()))
    except tarfile.TarError as error:
        return found, str(error)
    return found, archive.offset


def archive_of_all_kinds(format, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, **options) as tar:
        names = ["a.jpg", "caf\udce9.jpg", "é.cls", "x" * 100, "y" * 90 + "/" + "z" * 60, "b/", "./c//d.json", "n" * 99]
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = 700 * (number % 3)
            member.mtime = 1.7e9 + (number % 2) / 2
            member.uid = 3_000_000 if number == 0 and format != tarfile.USTAR_FORMAT else 0
            tar.addfile(member, io.BytesIO(bytes([number]) * member.size))
        for number, kind in enumerate((tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.AREGTYPE)):
            member = tarfile.TarInfo(f"kind{number}/")
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_headers_are_read_as_by_tarfile(format):
    data = archive_of_all_kinds(format)
    assert len(members(data, FastTarInfo)[0]) == 13
    assert members(data, FastTarInfo) == members(data, tarfile.TarInfo)
    rng = random.Random(0)
    for _ in range(100):
        for damaged in (flip_bit(data, rng.randrange(len(data))), data[: rng.randrange(len(data))]):
            assert members(damaged, FastTarInfo) == members(damaged, tarfile.TarInfo)


def test_global_headers_apply_to_all_members():
    data = archive_of_all_kinds(tarfile.PAX_FORMAT, pax_headers={"path": "renamed", "comment": "x"})
    assert members(data, FastTarInfo) == members(data, tarfile.TarInfo)
    assert "renamed" in [name for name, *_ in members(data, FastTarInfo)[0]]


def webdataset(shards, images=50):
    return {
        f"train-{shard:04}.tar": make_tar(
            {f"n{i % 5:08}_{shard * images + i}.{suffix}": b"%d" % (i % 5) for i in range(images) for suffix in ("jpg", "cls")}
        )
        for shard in range(shards)
    }


def folders(shards, images=50):
    return {f"train/{label}/{i:012}.jpg": b"x" for label in range(shards) for i in range(images)}


@pytest.mark.parametrize("files", [webdataset, folders])
def test_memory_of_a_source(files, tmp_path):
    """Check that an image takes little more than its name; with 1,000 bytes, ImageNet would take more than a gigabyte."""
    open_source(write_files(tmp_path / "small", files(2)))  # imports and caches
    path = write_files(tmp_path / "large", files(12))
    tracemalloc.start()
    try:
        source = open_source(path)
        used, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    images = sum(source.num_images.values())
    assert images == 600
    assert used / images < 140
    assert peak / images < 280
