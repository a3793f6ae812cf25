"""Text from file names and other files: valid Unicode, without control characters on a terminal, and inert in spreadsheets."""

import unicodedata

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")
"""First characters that spreadsheets do not take for text, and the quote that `csv_cell` puts before them."""


def file_name_text(name: str) -> str:
    r"""Return a file name from the operating system as valid Unicode, in which bytes that are not UTF-8 are escaped.

    Examples:
      >>> print(file_name_text("caf\udce9.jpg"))
      caf\xe9.jpg
    """
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    r"""Return the text on one line, with control characters, invalid Unicode and changes of the writing direction escaped.

    Examples:
      >>> print(printable("a\tb \x1b[31m"))
      a\tb \x1b[31m
    """
    if text.isprintable():
        return text
    return "".join(character if _is_visible(character) else _escape(character) for character in text)


def csv_cell(text: str) -> str:
    """Return the text as a cell that spreadsheets do not take for a formula: a quote is put before `FORMULA_STARTS`.

    Examples:
      >>> csv_cell("=1+1"), csv_cell("a=1")
      ("'=1+1", 'a=1')
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def normalized(text: str) -> str:
    """Return the text in Unicode's normal form C, in which characters that look the same are usually equal."""
    return unicodedata.normalize("NFC", text)


def _is_visible(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs" or character == "\u200d"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode() if not 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"
