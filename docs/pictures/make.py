#!/usr/bin/env python3
"""Make the pictures of the README from a demo's repository; run by hand, never by a test.

    python3 dev.py demo /tmp/demo
    .venv/bin/python docs/pictures/make.py /tmp/demo

Writes plan.svg (what `espalier plan` shows on a terminal, of the demo's second commit) and, where
chromium is installed, mlflow.png (MLflow's page of a version, from a server on loopback).
"""

import argparse
import html
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
COLOURS = {"31": "#d1242f", "32": "#1a7f37", "33": "#9a6700", "34": "#0969da", "36": "#1b7c83", "2": "#6e7781"}
FONT_PX, LINE_PX, MARGIN_PX = 14, 20, 16
CHARACTER_PX = 8.43  # of the usual monospaced fonts at 14 px
_ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the pictures of the README.")
    parser.add_argument("demo", type=Path, help="a repository that `dev.py demo` has made")
    demo = parser.parse_args().demo.resolve()
    (HERE / "plan.svg").write_text(terminal_svg("$ espalier plan\n" + plan_of_the_edit(demo)), "utf-8")
    print(HERE / "plan.svg")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        print("no chromium here: mlflow.png stays as it is", file=sys.stderr)
        return 0
    with mlflow_server(demo) as address:
        screenshot(browser, page_of_last_version(demo, address), HERE / "mlflow.png")
    print(HERE / "mlflow.png")
    return 0


def plan_of_the_edit(demo: Path) -> str:
    """Return the plan of the demo's second commit against the ledger as it was then, made in a clone."""
    commits = subprocess.check_output(["git", "rev-list", "--reverse", "HEAD"], cwd=demo, text=True).split()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / demo.name
        subprocess.run(["git", "clone", "-q", str(demo), str(clone)], check=True)
        git = ["git", "-C", str(clone)]
        subprocess.run([*git, "fetch", "-q", str(demo), "refs/espalier/ledger"], check=True)
        subprocess.run([*git, "update-ref", "refs/espalier/ledger", last_of_source(demo, commits[0])], check=True)
        subprocess.run([*git, "reset", "-q", "--hard", commits[1]], check=True)
        return in_a_terminal([str(BIN / "espalier"), "plan"], clone)


def last_of_source(demo: Path, commit: str) -> str:
    """Return the last commit of the ledger before one that another source commit caused."""
    form = "%H %(trailers:key=Espalier-Source,valueonly,separator=%x2C)"
    log = subprocess.check_output(
        ["git", "log", "--reverse", f"--format={form}", "refs/espalier/ledger"], cwd=demo, text=True
    )
    last = ""
    for line in log.splitlines():
        ledger_id, _, source = line.partition(" ")
        if source and source != commit:
            break
        last = ledger_id
    return last


def in_a_terminal(command: list[str], folder: Path) -> str:
    """Return what a command prints to a terminal of 110 columns, with its colours."""
    chunks: list[bytes] = []

    def read(descriptor: int) -> bytes:
        chunk = os.read(descriptor, 65536)
        chunks.append(chunk)
        return b""

    os.environ |= {"COLUMNS": "110", "TERM": "xterm-256color"}
    before = os.getcwd()
    os.chdir(folder)
    try:
        pty.spawn(command, read)
    finally:
        os.chdir(before)
    return b"".join(chunks).decode().replace("\r\n", "\n").rstrip()


def terminal_svg(text: str) -> str:
    """Return a picture of terminal output: colours, bold and dim; nothing else is understood."""
    lines = text.split("\n")
    width = max(len(_ESCAPE.sub("", line)) for line in lines) * CHARACTER_PX + 2 * MARGIN_PX
    height = len(lines) * LINE_PX + 2 * MARGIN_PX
    rows = []
    for number, line in enumerate(lines):
        y = MARGIN_PX + number * LINE_PX + FONT_PX
        rows.append(f'<text x="{MARGIN_PX}" y="{y}" xml:space="preserve">{spans(line)}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">',
            '<rect width="100%" height="100%" rx="8" fill="#ffffff" stroke="#d0d7de"/>',
            f'<g font-family="ui-monospace, Menlo, DejaVu Sans Mono, monospace" font-size="{FONT_PX}" fill="#1f2328">',
            *rows,
            "</g>\n</svg>\n",
        ]
    )


def spans(line: str) -> str:
    """Return one line as SVG, with its escape codes turned into attributes."""
    parts, look = [], ""
    for number, piece in enumerate(_ESCAPE.split(line)):
        if number % 2:
            codes = piece.split(";")
            colour = next((f' fill="{COLOURS[code]}"' for code in codes if code in COLOURS), "")
            look = colour + (' font-weight="bold"' if "1" in codes else "")
        elif piece:
            parts.append(f"<tspan{look}>{html.escape(piece)}</tspan>" if look else html.escape(piece))
    return "".join(parts)


@contextmanager
def mlflow_server(demo: Path) -> Iterator[str]:
    """Serve the demo's store on loopback while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{demo}/mlflow.db", "--artifacts-destination", f"{demo}/mlartifacts"]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


def page_of_last_version(demo: Path, address: str) -> str:
    """Return the address of the page of digits/mlp's last version."""
    told = subprocess.check_output([str(BIN / "espalier"), "show", "digits/mlp", "--format", "json"], cwd=demo)
    run_id = json.loads(told)["run_id"]
    asked = urllib.request.urlopen(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}")
    experiment = json.load(asked)["run"]["info"]["experiment_id"]
    return f"{address}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"


def screenshot(browser: str, address: str, file: Path) -> None:
    """Let a browser without a window draw the page."""
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1500,1480"]
        options += [f"--user-data-dir={profile}", "--virtual-time-budget=30000", f"--screenshot={file}"]
        subprocess.run([browser, *options, address], check=True, stderr=subprocess.DEVNULL, timeout=300)


if __name__ == "__main__":
    sys.exit(main())
