"""What is on the screen: real runs in a pseudo-terminal, seen through a terminal emulator."""

from extras import needs

needs("trl", "lightning", "pyte", "rich")

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pyte
import pytest
from places import ROOT, WORKERS
from terminal_worker import MARK

WIDTH, HEIGHT = 120, 300
STAGES = (
    "sampling the reference",
    "sampling and verifying",
    "scoring again",
    "scoring",
    "gradients",
)
STAGE = re.compile(f"passk-guard: ({'|'.join(STAGES)})")
HEAD = "change in the pool ± 95 %"
SPEED = r"(it/s|s/it)"
BAR = {"trl": r"100%\|.*4/4 \[", "tqdm": r"100%\|.*4/4 \[", "rich": r"Epoch.* 4/4 "}


def start(what, folder, **streams):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return subprocess.Popen(
        [sys.executable, str(WORKERS / "terminal_worker.py"), what, str(folder)],
        env={**kept, **environment},
        **streams,
    )


def in_terminal(what, folder):
    """Everything that a run wrote to its terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    process = start(what, folder, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    try:
        while chunk := os.read(master, 65536):
            written += chunk
    except OSError:  # Linux's way of saying that the other side is closed
        pass
    os.close(master)
    process.wait(60)
    return written.decode()


def screen(written):
    """What stays on the screen."""
    shown = pyte.Screen(WIDTH, HEIGHT)
    pyte.Stream(shown).feed(written)
    return shown


def lines(shown):
    return [line.rstrip() for line in shown.display]


@pytest.fixture(scope="module", params=["trl", "tqdm", "rich"])
def run(request, tmp_path_factory):
    """The host, all that was written in its three runs, and the screen after them."""
    folder = tmp_path_factory.mktemp(request.param)
    written = in_terminal(request.param, folder)
    return request.param, written.split(MARK), lines(screen(written)), folder


def parts(found):
    """The lines that stay of each run."""
    ends = [i for i, line in enumerate(found) if line.startswith(MARK)]
    starts = [0, *(end + 1 for end in ends)]
    return [found[a:b] for a, b in zip(starts, ends, strict=False)]


def test_a_look_is_shown_while_it_lasts_and_leaves_nothing_behind(run):
    _, written, found, _ = run
    seen = {match[1] for match in STAGE.finditer(written[1])}
    assert seen == set(STAGES)
    assert not [line for line in found if STAGE.search(line)]


def test_the_hosts_bar_is_there_once_as_without_the_guard(run):
    host, _, found, _ = run
    alone, guarded, _ = parts(found)
    for part in (alone, guarded):
        assert sum(bool(re.search(rf"{BAR[host]}.*{SPEED}]?$", line)) for line in part) == 1
    # Lightning's last message freezes one more; the guard adds none to that.
    frozen = [sum(bool(re.search(SPEED, line)) for line in part) for part in (alone, guarded)]
    assert frozen[0] == frozen[1]


def test_the_run_ends_with_one_table_in_colour_and_where_there_is_more(run):
    _, written, found, folder = run
    _, guarded, _ = parts(found)
    assert sum(HEAD in line for line in guarded) == 1
    assert sum("ALARM: level" in line for line in guarded) == 1
    assert re.search(r"\x1b\[1;31m[^\x1b]*ALARM: level", written[1])
    command = f"More: passk-guard report {folder}"
    assert command in "".join(line.ljust(WIDTH) for line in guarded)


def test_where_the_host_shows_no_progress_the_guard_shows_none(run):
    _, written, _, _ = run
    assert "passk-guard" not in written[2]
    assert HEAD not in written[2]


def test_weights_are_bit_identical_with_the_display(run):
    _, written, _, _ = run
    assert "same weights: True" in written[3]


def test_the_terminal_is_sane_afterwards(run):
    _, written, _, _ = run
    assert not screen(MARK.join(written)).cursor.hidden


@pytest.mark.parametrize("what", ["SIGINT", "SIGKILL"])
def test_a_run_that_ends_in_a_probe_leaves_a_cursor(tmp_path, what):
    written = in_terminal(what, tmp_path)
    assert STAGE.search(written)
    shown = screen(written)
    assert not shown.cursor.hidden
    if what == "SIGINT":
        assert "KeyboardInterrupt" in written
        assert not [line for line in lines(shown) if STAGE.search(line)]


def test_a_log_file_gets_a_plain_table_and_no_escape_codes(tmp_path):
    process = start("piped", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = (text.decode() for text in process.communicate(timeout=120))
    assert process.returncode == 0, errors
    assert errors.count(HEAD) == 1
    assert "More: passk-guard report" in errors
    assert "\x1b[3" not in errors + said  # colour
    assert "\x1b[2K" not in errors + said  # a line that is drawn again
    assert not STAGE.search(errors + said)


def test_a_verifier_may_use_tqdm_on_another_thread_and_random_numbers_stay(tmp_path):
    written = in_terminal("display", tmp_path)
    found = lines(screen(written))
    assert "all is well" in found, written
    assert re.search("passk-guard: gradients [1-7]/8", written)
    assert [line[:10] for line in found[:3]] == ["host: 100%", "all is wel", ""]
