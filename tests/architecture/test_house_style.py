"""Sizes that keep a reader going, and files that hold nothing of one machine."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for package in ("tfmm", "pipelines", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
MAX_LINES_OF_A_FUNCTION, MAX_LINES_OF_A_MODULE = 40, 400
MAX_PARAMETERS = 6

Function = ast.FunctionDef | ast.AsyncFunctionDef
FOREIGN = re.compile(
    r"(?<![\w.:/])/(?:work|root|home|Users|opt)/\w"
    r"|pypi\.org|pythonhosted|--(?:extra-)?index-url|--trusted-host"
)


def is_command(function: Function) -> bool:
    """Whether click makes a command of it, which takes what a person may type."""
    return any(".command(" in ast.unparse(decorator) for decorator in function.decorator_list)


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines from `def` to the last, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    return lines - docstring_lines(function)


def parameters(function: Function) -> int:
    """Number of parameters, self and cls aside."""
    arguments = function.args
    names = [a.arg for a in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return len([name for name in names if name not in ("self", "cls")])


def docstring_lines(node: ast.Module | ast.ClassDef | Function) -> int:
    if ast.get_docstring(node) is None:
        return 0
    first = node.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_is_short(source: str):
    text = (ROOT / source).read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if source == "tfmm/config.py":  # one tree in one place, where every key is documented
        tree = ast.walk(ast.parse(text))
        lines -= sum(docstring_lines(node) for node in tree if isinstance(node, ast.ClassDef))
    assert lines <= MAX_LINES_OF_A_MODULE


@pytest.mark.parametrize("source", SOURCES)
def test_functions_are_short_and_take_few_parameters(source: str):
    tree = ast.parse((ROOT / source).read_text(encoding="utf-8"))
    faults = []
    for function in functions(tree):
        count = parameters(function)
        where = f"{source}:{function.lineno} {function.name}"
        if body_lines(function) > MAX_LINES_OF_A_FUNCTION:
            faults.append(f"{where}: {body_lines(function)} lines")
        if count > MAX_PARAMETERS and not is_command(function):
            faults.append(f"{where}: {count} parameters")
    assert not faults, "\n".join(faults)


def test_the_measures_can_fail():
    long = "def f(a, b, c):\n" + "    x = 1\n" * 41
    (function,) = functions(ast.parse(long))
    assert body_lines(function) == 42
    assert parameters(function) == 3
    (method,) = functions(ast.parse("class A:\n    def f(self, a, *, b): pass"))
    assert parameters(method) == 2


def files() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout")
    here = Path(__file__).relative_to(ROOT).as_posix()
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file() and name != here]


def test_no_file_names_a_folder_of_one_machine_or_a_registry():
    faults = []
    for name in files():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        faults += [
            f"{name}:{number}: {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if FOREIGN.search(line)
        ]
    assert not faults, "\n".join(faults)


def test_the_search_for_foreign_names_can_fail():
    assert FOREIGN.search("open('/work/x')")
    assert FOREIGN.search("pip install --extra-index-url x")
    assert not FOREIGN.search("saved_models/demo/1 and tests/home/x")
