"""Writes the files of a run whole or not at all: text, CSV, JSON and JSONL."""

import contextlib
import csv
import io
import json
import os


def write_text(path, text):
    """Writes the file under a temporary name and renames it.

    So no reader sees half a file, and a killed run leaves none. Under torchrun only rank 0 writes.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path):
    """A temporary name that is renamed to `path` at the end: a file of that name is always whole.

    On failure the temporary file is removed. An OSError (a full disk) comes back as one line that
    names `path`.
    """
    temporary = f"{path}.tmp"  # same folder, as a rename across disks is not atomic
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(f"{path}: cannot be written ({error.strerror or error})") from None
        raise


def write_csv(path, lines):
    """One row a dict; a key that some rows lack is left empty there."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(key for line in lines for key in line)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_jsonl(path, records):
    """One JSON object per line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
