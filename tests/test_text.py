"""Tests of text from file names: nothing is lost and nothing is executed, on a terminal and in a spreadsheet."""

import csv
import io
import os
import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from alexnet_jax.console import PlainConsole
from alexnet_jax.text import csv_cell, file_name_text, printable

ANY_TEXT = st.text(st.characters(), max_size=20)
"""Text with control characters, directions and lone surrogates."""


@given(st.binary(min_size=1, max_size=20))
def test_file_names_are_valid_unicode_and_nothing_is_lost(name):
    text = file_name_text(os.fsdecode(name))
    assert text.encode("utf-8").decode("utf-8") == text
    restored = re.sub(rb"\\x([89a-f][0-9a-f])", lambda match: bytes([int(match[1], 16)]), text.encode())
    assert restored == name or b"\\x" in name


@given(ANY_TEXT)
def test_printed_text_is_one_line_of_visible_characters(text):
    line = printable(text)
    line.encode("utf-8")
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cs", "Zl", "Zp"}
    assert "\u202e" not in line, "right-to-left override"
    assert printable(line) == line
    if "\\" not in text and not any(0xDC80 <= ord(character) <= 0xDCFF for character in text):
        assert line.encode("latin1", "backslashreplace").decode("unicode_escape") == text


@given(ANY_TEXT.filter(lambda text: text.isascii()))
def test_spreadsheets_find_no_formula(text):
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell(text), "next"])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert row[0].removeprefix("'") == text if row[0].startswith("'") else row[0] == text


@given(st.text(st.sampled_from("[]/:abold#\x1b\t\n {}é"), min_size=1, max_size=12))
def test_the_console_prints_any_text_as_it_is(text):
    console = PlainConsole(file=io.StringIO(), soft_wrap=True, force_terminal=False, width=200)
    console.print(text, style="yellow")
    table = Table("name")
    table.add_row(text)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().split("\n")
    assert lines[0] == printable(text)
    assert any(printable(text).strip() in line for line in lines[1:])
