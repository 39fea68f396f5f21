"""From the bytes of a data file to its JSON objects, each with its place, and their fields checked.

`numbered` reads a file whole: JSONL, one JSON array, or CSV by its name, gzipped or not. A place is
`FILE:LINE`. `files_of` lists the files of a folder. The getters (`text_of`, `texts_of`, `list_of`,
`object_of`) return a field of an object or raise DataError. The message says what was found and
what was expected, e.g. `'prompt' is a number; expected a string`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from pathlib import Path

TO_JSONL = (
    'write it as JSONL: python -c "import pandas; pandas.read_parquet({old!r})'
    ".to_json({new!r}, orient='records', lines=True)\""
)
ARROW = "write it as JSONL, e.g. datasets.Dataset.from_file(...).to_json(...)"
GZIP = b"\x1f\x8b"
# (first bytes, form, remedy): a file is known by its first bytes, since a name can say anything
OTHER_FORMS = (
    (b"PAR1", "a Parquet file", TO_JSONL),
    (b"ARROW1", "an Arrow file", ARROW),
    (b"\xff\xff\xff\xff", "an Arrow stream", ARROW),
    (b"PK\x03\x04", "a zip archive", "unpack it with unzip and give the file inside"),
    (b"BZh", "packed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "packed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the file inside"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8, e.g. iconv -f UTF-32 -t UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the data",
        "fetch the data with git lfs pull",
    ),
)

RECORDS = (".jsonl", ".json", ".csv")  # what a folder's files of records are called, or with .gz
# the columns of a CSV whose cells are JSON lists; all others are text
LISTS = (
    *("messages", "conversations", "history", "instances", "responses"),
    *("tools", "test_list", "test_imports"),
)
EITHER = ("prompt", "completion", "chosen", "rejected")  # text, or a JSON list of messages
MESSAGES = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content)['\"]\s*:")  # as it begins, Python's too


class DataError(ValueError):
    """A file that cannot be used. str() is one line: `FILE:LINE: what is wrong; the remedy`."""


# ---- a file ----


def load(path):
    """The text of a file, unpacked and without BOM. Raises DataError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(GZIP):  # browsers unpack downloads and keep the .gz in the name
            data = gzip.decompress(data)
        check_form(data, path)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: the gzip data is cut off or damaged ({error}); download it again"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected one readable file"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(
            f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def check_form(data, path):
    """Raises DataError for bytes of another form, by its name."""
    for start, form, remedy in OTHER_FORMS:
        if data.startswith(start):
            remedy = remedy.format(old=str(path), new=str(Path(path).with_suffix(".jsonl")))
            raise DataError(f"{path}: the file is {form}; {remedy}")
    if data[257:262] == b"ustar":
        raise DataError(f"{path}: the file is a tar archive; unpack it and give the file inside")
    if b"\0" in data[:4]:  # half of every ASCII character, where there is no byte order mark
        raise DataError(
            f"{path}: the file is UTF-16 text or no text; save it as UTF-8, e.g. "
            "iconv -f UTF-16 -t UTF-8"
        )


def named(path, *endings):
    """Whether a file's name ends so, `.gz` aside."""
    return str(path).lower().removesuffix(".gz").endswith(endings)


def files_of(path, *endings):
    """(files, notes): the files of a folder with these endings, by name, or the one file itself.

    A note names what else is there and not read; what begins with a dot is not spoken of. Raises
    DataError where there is nothing to read.
    """
    if not Path(path).is_dir():
        return [path], []
    try:
        inside = sorted(file for file in Path(path).iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    files = [file for file in inside if file.is_file() and named(file.name, *endings)]
    others = [f"{file.name} ({why_not_read(file)})" for file in inside if file not in files]
    told = ", ".join(others[:12]) + (f" and {len(others) - 12} more" if others[12:] else "")
    if not files:
        found = f"it holds {told}" if others else "it is empty"
        raise DataError(
            f"{path}: no file of the folder can be read, {found}; expected {', '.join(endings)}"
        )
    return files, [f"{path}: not read: {told}"] if others else []


def why_not_read(file):
    """Why a folder's file is left out: its form, with the remedy, or its name."""
    if file.is_dir():
        return "a folder"
    try:
        with open(file, "rb") as opened:
            check_form(opened.read(300), file)
    except DataError as error:
        return str(error).partition("the file is ")[2].replace("; ", ": ", 1)
    except OSError as error:
        return error.strerror
    return "another ending"


def holds_records(text, path):
    """Whether a file for pretraining holds records, by its name or its first one."""
    if named(path, *RECORDS):
        return True
    start = text.lstrip()
    try:
        if start.startswith("{"):
            return isinstance(json.loads(start.split("\n", 1)[0]), dict)
        return start.startswith("[") and all(isinstance(value, dict) for value in json.loads(start))
    except (ValueError, RecursionError):
        return False


def numbered(path):
    """[(place, object)] of a file: its line, or for an array "record N". Blank lines are skipped.

    Raises DataError for broken JSON or CSV, and for a record that is no object.
    """
    text = load(path)
    if named(path, ".csv"):
        return table(text, path)
    if text.lstrip()[:1] == "[":
        rows = [(f"record {i}", value) for i, value in enumerate(parse(text, path, 1), 1)]
    else:  # not splitlines(): JSON strings may hold U+2028 and its like unescaped
        lines = enumerate(text.split("\n"), 1)
        rows = [(i, parse(line, path, i)) for i, line in lines if line.strip()]
    for where, value in rows:
        if not isinstance(value, dict):
            raise DataError(
                f"{path}:{where}: the record is {type_name(value)}; expected a JSON object {{...}}"
            )
    return [(f"{path}:{where}", value) for where, value in rows]


def table(text, path):
    """`numbered` of a CSV, whose first row names the keys. An empty cell of a list is no list."""
    csv.field_size_limit(2**31 - 1)  # by default a cell may have 131,072 characters
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    header = None
    line = 1
    try:
        for cells in reader:
            place = f"{path}:{line}"
            line = reader.line_num + 1
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise DataError(f"{place}: the header names a column twice; rename one")
            elif len(cells) == len(header):
                row = zip(header, cells)
                rows.append((place, {key: cell_of(cell, key, place) for key, cell in row}))
            elif cells:  # [] is a blank line
                raise DataError(
                    f"{place}: the row has {len(cells)} cells and the header {len(header)}; "
                    'put a cell that holds a comma or a line break into "..."'
                )
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: broken CSV ({error}); expected commas between cells, and a quote "
            'inside of "..." doubled'
        ) from None
    return rows


def cell_of(cell, key, place):
    """The text of a cell, or in one of the columns LISTS the list that it holds as JSON."""
    if key not in LISTS and not (key in EITHER and MESSAGES.match(cell)):
        return cell
    if not cell.strip():
        return None
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise DataError(
            f"{place}: '{key}' is {clip(cell)}; in a CSV it is a list as JSON, or give JSONL"
        ) from None


def parse(text, path, line):
    """The JSON value of a text that starts at this line of the file."""
    try:
        value = json.loads(text)
        # such an escape can be half a character, which nothing could encode or write again
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        line += getattr(error, "lineno", 1) - 1
        place = f" at column {error.colno}" if hasattr(error, "colno") else ""
        raise DataError(
            f"{path}:{line}: broken JSON ({getattr(error, 'msg', error)}{place}); "
            "expected one JSON object per line, or one array of objects"
        ) from None


# ---- the fields of an object ----


def object_of(value, name):
    """`value` itself, which is called `name` in the message where it is no object."""
    if not isinstance(value, dict):
        raise DataError(f"{name} is {type_name(value)}; expected an object")
    return value


def list_of(value, key):
    """A list with at least one entry."""
    found = value.get(key)
    if not isinstance(found, list) or not found:
        told = "an empty list" if found == [] else type_name(found)
        raise DataError(f"'{key}' is {told}; expected a list with entries")
    return found


def text_of(value, key, where=""):
    """A string; `where` stands before the key in the message, e.g. "messages[0]."."""
    if not isinstance(value.get(key), str):
        raise DataError(f"'{where}{key}' is {type_name(value.get(key))}; expected a string")
    return value[key]


def texts_of(value, key):
    """A list of strings, at least one."""
    for i, entry in enumerate(list_of(value, key)):
        if not isinstance(entry, str):
            raise DataError(f"{key}[{i}] is {type_name(entry)}; expected a string")
    return value[key]


def blank(text):
    """Nothing to see. For strip() alone UltraFeedback's zero-width spaces would be replies."""
    return not any(char.isprintable() and not char.isspace() for char in text)


def type_name(value):
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        type(None): "missing or null",
    }
    return names.get(type(value), "a number")


def clip(value):
    """repr, which keeps the error on one line, cut to a readable length."""
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
