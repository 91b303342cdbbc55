#!/usr/bin/env python3
"""Writes the settings of PassKGuardConfig into every adapter's signature; `--check` compares only.

Settings are declared once, in passk_guard/config.py. LightningCLI and editors read signatures, so
each adapter names them all: between `# Settings` (perhaps with names that it leaves out) and
`# End of settings`, once as parameters and once as arguments.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "passk_guard" / "config.py"
BLOCK = re.compile(r"( *)# Settings(?: but (?P<out>[\w, ]+))?\.\n.*?\1# End of settings\.\n", re.S)


def settings() -> dict[str, tuple[str, str]]:
    """Annotation and default of each setting, as written in the config."""
    tree = ast.parse(CONFIG.read_text())
    spelt = {}
    for node in tree.body:  # what the names of types stand for, for type checkers
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                spelt[ast.unparse(line.targets[0])] = ast.unparse(line.value)
    (config,) = (n for n in tree.body if isinstance(n, ast.ClassDef))
    fields = [n for n in config.body if isinstance(n, ast.AnnAssign)]
    return {
        field.target.id: (
            spelt.get(ast.unparse(field.annotation), ast.unparse(field.annotation)),
            ast.unparse(field.value).replace("'", '"'),
        )
        for field in fields
    }


def written(text: str) -> str:
    """An adapter's source with both blocks as they should be."""
    known = settings()

    def block(found: re.Match) -> str:
        indent, head = found[1], found[0].split("\n", 1)[0]
        left_out = set((found["out"] or "").replace(" ", "").split(","))
        names = {name: how for name, how in known.items() if name not in left_out}
        if len(indent) > 8:  # the call
            lines = [f"{indent}{name}={name}," for name in names]
        else:
            lines = [
                f"{indent}{name}: {kind} = {default}," for name, (kind, default) in names.items()
            ]
        return "\n".join([head, *lines, f"{indent}# End of settings.", ""])

    return BLOCK.sub(block, text)


def main() -> int:
    """Write or check; the number of adapters that differ."""
    stale = []
    for path in sorted((ROOT / "integrations").glob("[a-z]*.py")):
        now = path.read_text()
        if (wanted := written(now)) != now:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(wanted)
    if stale:
        print(f"{'stale' if '--check' in sys.argv else 'written'}: {', '.join(stale)}")
    return len(stale) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
