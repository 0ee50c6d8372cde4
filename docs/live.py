"""Live examples: the commands of a page's ```sh live blocks, run when the site is made, and what they answered.

The blocks are plain commands to whoever reads the page where the code is. Behind `live` stand the pictures to show, as
patterns, and `ends=2` where the exit status is to be that and not 0: any other fails the site. All commands of a page
run in one folder that is new and goes again. What they answered is kept until a command or a source changes.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```sh live *(?P<wanted>[^\n]*)\n(?P<commands>.*?)^```\n", flags=re.S | re.M)
PACKAGES = ("storage", "dali_pipelines", "models", "scoring", "ray_jobs", "examples")
SECONDS = 600  # that a command may take
# Plain text of one width, whoever builds, and nothing of a cluster that this shell may belong to.
SHELL = {"COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
SHELL["BRATS_RUNS"] = "runs"  # else help screens have the folder's whole name, which is another each time


def answer(page: str, kept: Path) -> str:
    """The page with what its live commands printed and drew below each block; files lie in the folder `kept`."""
    blocks = list(BLOCK.finditer(page))
    if not blocks:
        return page
    digest = digest_of([block[0] for block in blocks])
    note = kept / "answers.json"
    answers = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if answers.get("digest") != digest:
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="brats-live-") as folder:
            shown = [run_block(block["commands"], block["wanted"].split(), Path(folder), kept) for block in blocks]
        answers = {"digest": digest, "shown": shown}
        note.write_text(json.dumps(answers), encoding="utf-8")
    shown = iter(answers["shown"])
    return BLOCK.sub(lambda block: f"{block[0]}\n{next(shown)}\n", page)


def digest_of(blocks: list[str]) -> str:
    """Of the blocks and all that they may run."""
    digest = hashlib.sha256("\0".join(blocks).encode())
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def run_block(commands: str, wanted: list[str], folder: Path, kept: Path) -> str:
    """Run a block's commands in the folder; return what is to be seen of it, as Markdown."""
    status = next((int(word.removeprefix("ends=")) for word in wanted if word.startswith("ends=")), 0)
    printed = "".join(run(line, folder, status) for line in commands.replace("\\\n", " ").splitlines() if line.strip())
    shown = [f"```text\n{printed.rstrip()}\n```\n"] if printed.strip() else []
    for pattern in [word for word in wanted if not word.startswith("ends=")]:
        found = sorted(folder.glob(pattern))
        if not found:
            raise SystemExit(f"no picture {pattern} came of: {commands.strip()}")
        shutil.copy(found[0], kept / found[0].name)
        shown.append(f"![{found[0].stem}](../{(kept / found[0].name).relative_to(ROOT)})\n")
    return "\n".join(shown)


def run(line: str, folder: Path, status: int) -> str:
    """Run one command; return what it printed, without the way to the folder it ran in."""
    words = shlex.split(line, comments=True)
    assert words[0] == "python", f"{line}: a live command is one of Python"
    script = [str(ROOT / word) if (ROOT / word).is_file() else word for word in words[1:2]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRATS_", "RAY_"))}
    command = [sys.executable, *script, *words[2:]]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, **SHELL},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    if done.returncode != status:
        raise SystemExit(f"{line}\n{done.stdout}\nended with {done.returncode}, not {status}")
    return re.sub(r"[ \t]+$", "", done.stdout.replace(f"{folder}/", "").replace(f"{ROOT}/", ""), flags=re.M)
