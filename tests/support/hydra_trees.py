"""Random small configuration trees and override lists, for comparing two implementations of Hydra's composition."""

from pathlib import Path
from random import Random

GROUPS = ["g", "h", "g/sub"]
OPTIONS = ["a", "b", "c"]
KEYS = ["x", "y", "z", "w"]
SCALARS = ["1", "-2", "0.5", "1e-4", "1E5", "true", "off", "null", "~", "text", "'1'", '"a b"', "0x10", "010", "08"]
SCALARS += [
    "1_000",
    "12:30:00",
    "08:00:00",
    ".5",
    "1.",
    "-.inf",
    "2026-01-02",
    "a/b.c",
    "''",
    "[1, two, [3]]",
    "[]",
    "{}",
]
PACKAGES = ["", "", "", "@p", "@p.q", "@_global_", "@_here_", "@_group_"]
PATHS = [*KEYS, *(f"{group}.{key}" for group in ("g", "h", "g.sub", "p", "p.q") for key in KEYS)]
PATHS += ["g", "h", "g.x.y", "x.y"]
VALUES = ["1", "-1", "+3", "1e-4", "0x10", "007", "1_000", "true", "False", "null", "NULL", "", "'a b'", '"it\\"s"']
VALUES += ["[1,2]", "[]", "[a, 'b c', [1]]", "{x:1}", "{x: {y: 2}, z: null}", "{}", "a/b", "a:b", "01:00:00", "${x}"]
VALUES += ["'${g.x}'", "a\\,b", "int(3.7)", "str([1e-4,true])", "float(3)", "bool(TRUE)", ".5", "inf", "???", "a b"]
VALUES += ["1.2.3", "-", "a-b_c", "@x", "$y", "C:\\dir", "\\(x\\)", "x y ", "100%", "*", "a|b"]
BROKEN_VALUES = ["1,2", "fn(1)", "'", "[1", "{a}", "é", "a)", "int(x)", "choice(1,2)", " "]


class Tree:
    """One random tree, and override lists that make some sense for it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.chosen: list[str] = []
        self.files = {"config": self.file("", "config")}
        for group in GROUPS:
            for option in OPTIONS:
                if self.random.random() < 0.95:
                    self.files[f"{group}/{option}"] = self.file(group, option)

    def write(self, root: Path) -> None:
        """Writes the files below `root`."""
        for name, text in self.files.items():
            path = root / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def describe(self) -> str:
        """All files, for the message of a failing test."""
        return "\n".join(f"--- {name}.yaml\n{text}" for name, text in self.files.items())

    def pick(self, *choices: str) -> str:
        """One of the choices."""
        return self.random.choice(choices)

    def file(self, group: str, option: str) -> str:
        """Text of a file."""
        headers = ["# @package _global_\n", "# @package p.q\n", "# @package _global_.p\n", "# A comment.\n", ""]
        header = self.random.choices(headers, [1, 1, 1, 1, 9])[0] if group else ""
        return header + self.defaults(group, option) + self.body(0)

    def defaults(self, group: str, option: str) -> str:
        """A defaults list, or nothing. Files include only what is further down, so that there are no cycles."""
        if group and self.random.random() < 0.6:
            return ""
        entries = []
        for _ in range(self.random.randint(1, 3)):
            chosen = self.pick(*OPTIONS)
            below = GROUPS if not group else GROUPS[GROUPS.index(group) + 1 :]
            later = OPTIONS[OPTIONS.index(option) + 1 :] if group else []
            if later and self.random.random() < 0.4:
                entries.append(self.pick(*later) + self.pick("", "", "@p", "@_here_"))
            elif below:
                target = self.pick(*below)
                name = ("/" if group else self.pick("", "/")) + target
                package = self.pick(*PACKAGES, f"@{target.replace('/', '.')}")
                word = self.pick("", "", "", "", "optional ")
                nested = "sub/a" if target == "g" else chosen
                values = [chosen, nested, "null", f"[{chosen}]", "[a, b]", "???", "missing" if word else chosen]
                value = self.random.choices(values, [12, 1, 0.5, 0.5, 0.5, 0.1, 1])[0]
                if not group:
                    self.chosen.append(target + (package if package not in ("@_here_", "@_group_") else ""))
                entries.append(f"{word}{name}{package}: {value}")
        if self.random.random() < 0.7:
            entries.insert(self.random.randint(0, len(entries)), "_self_")
        if self.random.random() < 0.15:
            entries.append(f"override /{self.pick(*(self.chosen or GROUPS))}: {self.pick(*OPTIONS)}")
        return "defaults:\n" + "".join(f"  - {entry}\n" for entry in entries) if entries else ""

    def body(self, depth: int) -> str:
        """`key: value` lines."""
        keys = self.random.sample(KEYS, self.random.randint(0 if depth == 0 else 1, 3))
        if self.random.random() < 0.05:
            keys.append("x.y")  # one key with a dot, not a key inside another
        indent = "  " * depth
        lines = []
        for key in keys:
            if depth < 2 and self.random.random() < 0.3:
                lines.append(f"{indent}{key}:\n{self.body(depth + 1)}")
            else:
                lines.append(f"{indent}{key}: {self.value()}\n")
        return "".join(lines)

    def value(self) -> str:
        """A YAML value; one in ten is a reference."""
        if self.random.random() < 0.9:
            return self.pick(*SCALARS) if self.random.random() < 0.97 else "???"
        path = self.pick(*KEYS) if self.random.random() < 0.5 else self.pick(*PATHS)
        inner = self.pick(*KEYS)
        forms = [f"${{{path}}}", f"a-${{{path}}}/b", f"${{.{inner}}}", f"${{..{inner}}}", f"${{g.${{{inner}}}}}"]
        forms += [f"${{oc.select:{path},7}}", f"'${{oc.select:{path}}}'", f"${{g[{path}]}}", "'\\${not} a reference'"]
        forms += ["${oc.env:HOME}", "${oc.env:NOT_SET,some text}", "${oc.env:NOT_SET,null}", "${now:%Y}"]
        return self.pick(*forms)

    def overrides(self, paths: list[str]) -> list[str]:
        """Words of a command line, most of them about the given paths."""
        words = []
        for _ in range(self.random.choices([0, 1, 2, 3], [1, 4, 2, 1])[0]):
            prefix = self.random.choices(["", "+", "++", "~"], [6, 2, 2, 1])[0]
            if self.random.random() < 0.3:
                key = self.pick(*self.chosen, self.pick(*GROUPS) + self.pick("", "@p", "@_global_"))
                values = [*OPTIONS, "sub/a", "nope", "null", "[a,b]", "1"]
                value = self.random.choices(values, [8, 8, 8, 4, 1, 1, 1, 1])[0]
                prefix = "" if prefix == "++" and self.random.random() < 0.9 else prefix
            else:
                key = self.pick(*paths) if paths and self.random.random() < 0.8 else self.pick(*PATHS)
                value = self.pick(*VALUES) if self.random.random() < 0.95 else self.pick(*BROKEN_VALUES)
            bare = prefix == "~" and self.random.random() < 0.7
            words.append(prefix + key if bare else f"{prefix}{key}={value}")
        return words
