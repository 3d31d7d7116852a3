"""What a compiling process calls in the tests, in place of a compiler: each takes a job and a file to write."""

import os
import shutil
import signal
import subprocess
import sys
import time


def copy(job, file):
    file.write_bytes(job)


def count(job, file):
    """Append a line to the file that the job names, take a while, and write."""
    with open(job, "a") as tally:
        tally.write(f"{os.getpid()}\n")
    time.sleep(0.5)
    file.write_bytes(job)


def fail(job, file):
    print("fatal error: beyond.h: No such file or directory")
    raise RuntimeError("the C++ compiler ended with status 1")


def write_nothing(job, file):
    pass


def crash(job, file):
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(job, file):
    """Start a process, as g++ is one; tell the numbers of both in the file that the job names; go on for a minute."""
    child = subprocess.Popen(["sleep", "60"])
    temporary = job.decode() + ".new"
    with open(temporary, "w") as out:
        out.write(f"{os.getpid()} {child.pid} {file.parent}")
    os.replace(temporary, job)
    time.sleep(60)


def tell(job, file):
    """Write what this process is like."""
    facts = [
        os.nice(0),
        os.getsid(0) == os.getpid(),
        "torch" in sys.modules,
        os.environ["OMP_NUM_THREADS"],
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"],
        os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(file.parent)),
        sys.stdin.read(),
    ]
    file.write_text("\n".join(map(str, facts)))


def give(job, file):
    """Copy what $PPL_TESTS_PACKAGE names."""
    shutil.copy(os.environ["PPL_TESTS_PACKAGE"], file)


def linger(job, file):
    """Start a process, as g++ is one; tell the numbers of both in the file that $PPL_TESTS_TOLD names; go on for a minute."""
    sleep(os.environ["PPL_TESTS_TOLD"].encode(), file)
