"""Make docs/api.md, every public name with its docstring: `make docs`. It reads sources and imports none of them."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
PACKAGES = ("storage", "dali_pipelines", "models", "scoring")
WIDTH = 110

HEAD = """# Public names

What packages hand out, as it stands in their sources: `make docs` wrote this page. [The parts alone](parts.md) says how
to install them and shows them at work.
"""


def load() -> dict[str, griffe.Module]:
    """The packages, their public names resolved to what they name."""
    loader = griffe.GriffeLoader(search_paths=[ROOT])
    modules = {name: loader.load(name) for name in PACKAGES}
    loader.resolve_aliases(implicit=True)
    return modules  # type: ignore[return-value]  # not an alias, each


def public_names(module: griffe.Module) -> dict[str, griffe.Object]:
    """What a package's .pyi lists, each as it is defined."""
    named = sorted(module.members.items())
    return {name: member.final_target for name, member in named if member.is_alias and name != "lazy_loader"}


def public_members(public: griffe.Class) -> dict[str, griffe.Object]:
    """What a user touches of a class: how it is made, then fields, properties and methods in the source's order."""
    wanted = {"__init__", "__iter__"} if "dataclass" not in public.labels else set[str]()
    return {
        name: member
        for name, member in public.members.items()
        if (name in wanted or not name.startswith("_"))
        and (member.is_function or (member.is_attribute and member.annotation))
    }


def show(thing: griffe.Object) -> Iterator[str]:
    """Lines of Python: what is declared, the docstring below, of a class its members too."""
    if not isinstance(thing, griffe.Attribute):
        yield from ("", *(f"@{decorator.value}" for decorator in thing.decorators))
    if isinstance(thing, griffe.Class):
        bases = f"({', '.join(str(base) for base in thing.bases)})" if thing.bases else ""
        yield f"class {thing.name}{bases}:"
    elif isinstance(thing, griffe.Function):
        yield from wrap(f"def {thing.signature()}:")
    else:
        typed = f": {thing.annotation}" if thing.annotation else ""
        given = "" if thing.value is None else f" = {thing.value}" if len(str(thing.value)) < WIDTH else " = …"
        yield from wrap(f"{thing.name}{typed}{given}")
    inside = "" if isinstance(thing, griffe.Attribute) else "    "
    if thing.docstring:
        yield from textwrap.indent(f'"""{thing.docstring.value}"""', inside).splitlines()
    if isinstance(thing, griffe.Class):
        for member in public_members(thing).values():
            yield from (f"    {line}".rstrip() for line in show(member))


def wrap(declaration: str) -> list[str]:
    return textwrap.wrap(declaration, WIDTH, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)


def make_page(modules: dict[str, griffe.Module]) -> str:
    """The whole page."""
    parts = [HEAD]
    for package, module in modules.items():
        names = public_names(module)
        assert module.docstring is not None
        links = ", ".join(f"[{name}](#{name.lower()})" for name in names)
        parts.append(f"## {package}\n\n{module.docstring.value.splitlines()[0]}\n\n{links}\n")
        for name, thing in names.items():
            source = f"../{thing.module.path.replace('.', '/')}.py"
            code = "\n".join(show(thing)).strip()
            parts.append(f"### {name}\n\n[{source.removeprefix('../')}]({source})\n\n```python\n{code}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make_page(load()), encoding="utf-8")
