"""`python -m benchmarks`: says what there is, answers typing errors at once, and leaves a record of what was typed."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.report import command_line

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "nvidia", "matplotlib", "pandas", "scipy"}

# Runs the command, then says on the last line what it had imported.
PROBE = """
import sys
from benchmarks.__main__ import main
from storage import InputError
try:
    main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
except InputError:
    status = 2
print("\\n" + " ".join([str(status), *{name.split(".")[0] for name in sys.modules}]))
"""


def test_each_benchmark_says_what_it_measures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name in BENCHMARKS:
        (line,) = [line for line in said.splitlines() if f"• {name} " in line]
        assert any(verb in line for verb in ("Measure", "Estimate", "Check", "Write"))
    assert "InputError" not in said


@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments", [["--help"], ["train-step", "--help"], ["trainstep"], ["train-step", "--bacth", "1"]]
)
def test_help_and_typing_errors_are_answered_at_once(arguments: Sequence[str]) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    status, *imported = done.stdout.splitlines()[-1].split()
    assert int(status) == (0 if "--help" in arguments else 2)
    assert not HEAVY & set(imported)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_name_is_a_module_with_a_run(name: str) -> None:
    file = ROOT / "benchmarks" / f"{name.replace('-', '_')}.py"
    assert "\ndef run(" in file.read_text()


def test_a_record_says_what_to_type() -> None:
    typed = ["/x/benchmarks/__main__.py", "loader", "--store", "a store", "--json", "file", "--patches", "4"]
    assert command_line(typed) == "python -m benchmarks loader --store 'a store' --patches 4"
