"""Text out of files: UTF-8 and nothing else. What a file is instead is said, with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

from trimtab.spec.errors import DataError

_BOM = b"\xef\xbb\xbf"
# How other kinds of files begin; UTF-32 before UTF-16, whose mark begins it.
_BEGINNINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32 text", "Convert it: iconv -f UTF-32 -t UTF-8."),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "Convert it: iconv -f UTF-32 -t UTF-8."),
    (b"\xff\xfe", "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8."),
    (b"\xfe\xff", "UTF-16 text", "Convert it: iconv -f UTF-16 -t UTF-8."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: gunzip."),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it: unzstd."),
    (b"BZh9", "compressed with bzip2", "Unpack it: bunzip2."),
    (b"\xfd7zXZ\x00", "compressed with xz", "Unpack it: unxz."),
    (b"PK\x03\x04", "a zip archive", "Unpack it."),
    (b"PAR1\x15", "a Parquet table", "Write its rows as JSON lines."),
    (b"%PDF-", "a PDF", "Extract its text."),
)
LONGEST_BEGINNING = max(len(beginning) for beginning, _, _ in _BEGINNINGS)


def read_text(path: Path) -> str:
    """A whole file, without a byte order mark, its lines ended by a newline each. Raises `DataError`."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    refuse_other_kinds(data[:LONGEST_BEGINNING], path)
    text = decoded(data.removeprefix(_BOM), str(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_other_kinds(beginning: bytes, path: Path) -> None:
    """Raises `DataError` for what begins as compressed data, UTF-16 and other files do that hold no UTF-8 text."""
    for mark, what, remedy in _BEGINNINGS:
        if beginning.startswith(mark):
            raise DataError(f"the file is {what}, not UTF-8.", where=str(path), remedy=remedy)


def decoded(data: bytes, where: str, *, line: bool = False) -> str:
    """UTF-8 bytes as text, those of a whole file or of a line. Raises `DataError` with the byte, and of a file the
    line.
    """
    what = "line" if line else "file"
    zero = data.find(b"\x00")
    if zero >= 0:
        raise DataError(
            f"the {what} holds a NUL byte ({_place(data, zero, line)}), as UTF-16 and binary files do, and text "
            "does not.",
            where=where,
            remedy="Convert it to UTF-8 (iconv -f UTF-16 -t UTF-8), or take the NUL out (tr -d '\\000').",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the {what} is not UTF-8 text ({_place(data, error.start, line)}).",
            where=where,
            remedy="Convert it to UTF-8; of Latin-1, which it may be: iconv -f LATIN1 -t UTF-8.",
        ) from error


def _place(data: bytes, byte: int, line: bool) -> str:
    number = data.count(b"\n", 0, byte) + 1
    return f"byte {byte}" if line or number == 1 else f"byte {byte}, in line {number}"


def without_mark(first_line: bytes) -> bytes:
    """The first line of a file without its byte order mark."""
    return first_line.removeprefix(_BOM)


def unreadable(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"the file cannot be read: {reason}.", where=str(path))


def check_characters(text: str, where: str) -> None:
    """Raises `DataError` for half of a surrogate pair, which JSON can write and no text holds."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start]).strip("'")
        raise DataError(
            f"character {error.start + 1} is {half}, half of a character that something cut in two.",
            where=where,
            remedy="Take it out, or write the character whole.",
        ) from error


def check_file_name(path: Path) -> None:
    """Raises `DataError` for a name that is no UTF-8: splits and records are made of names."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            "the file's name is not UTF-8.", where=ascii(str(path)), remedy="Give the file another name."
        ) from error
