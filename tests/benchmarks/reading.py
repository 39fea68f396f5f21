"""How long is the code to read? A row for each core file, then README.md.

    python -m tests.benchmarks.reading

Core are the chapters and data/. A line is wide with more than 100 columns. A comment line holds
nothing but a comment. Prose are the words of docstrings and comments. Nothing is asserted.
"""

import ast
import io
import tokenize
from pathlib import Path

from tests.experiments.tables import head, row

ROOT = Path(__file__).parents[2]
WIDE = 100


def core_files(root: Path) -> list[Path]:
    """The chapters, then data/, each in the order of the names."""
    return [*sorted(root.glob("*.py")), *sorted((root / "data").rglob("*.py"))]


def comments_of(text: str) -> list[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token for token in tokens if token.type == tokenize.COMMENT]


def docstrings_of(text: str) -> list[str]:
    """Those of the module, its classes and its functions."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    return [ast.get_docstring(node) or "" for node in nodes]


def measured(text: str) -> dict:
    """What the table says of the text of one Python file."""
    lines = text.splitlines()
    comments = comments_of(text)
    alone = [comment for comment in comments if comment.line.lstrip().startswith("#")]
    prose = docstrings_of(text) + [comment.string.lstrip("# ") for comment in comments]
    return {
        "lines": len(lines),
        "widest": max(map(len, lines), default=0),
        "wide": sum(len(line) > WIDE for line in lines),
        "comments": len(alone),
        "words": sum(len(one.split()) for one in prose),
    }


def cells(name: str, file: dict) -> list[str]:
    share = 100 * file["comments"] / max(1, file["lines"])
    numbers = (file["lines"], file["widest"], file["wide"])
    return [name, *map(str, numbers), f"{share:.1f}%", str(file["words"])]


def main() -> None:
    print(head("file", "lines", "widest", f"over {WIDE}", "comment lines", "words of prose"))
    files = []
    for path in core_files(ROOT):
        file = measured(path.read_text(encoding="utf-8"))
        files.append(file)
        print(row(*cells(str(path.relative_to(ROOT)), file)))
    every = {key: sum(file[key] for file in files) for key in files[0]}
    every["widest"] = max(file["widest"] for file in files)
    print(row(*cells(f"all {len(files)} files", every)))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    print(f"\nREADME.md: {len(readme.splitlines())} lines, {len(readme.split()):,} words")


if __name__ == "__main__":
    main()
