"""What the package does to the interpreter it runs in.

How long it takes to import and to open; how soon Ctrl-C ends a call that waits; how much of its speed a counter in pure Python
keeps beside 64 threads that ask; what a process grows by in many calls. Each is measured in processes of their own.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import textwrap

from service import table

OPENING = """
    import time
    begun = time.perf_counter()
    import antiphon
    imported = time.perf_counter()
    antiphon.Engine()
    print(imported - begun, time.perf_counter() - imported)
"""

INTERRUPTS = """
    import os, signal, threading, time
    import antiphon

    class Broods:
        name = "broods"
        def generate(self, request):
            while True:
                yield ""
                time.sleep(0.005)

    engine = antiphon.Engine(generators=[Broods()])
    for _ in range({count}):
        sent = []
        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.2, interrupt).start()
        try:
            engine.process("Hello", model="broods")
        except KeyboardInterrupt:
            print(time.perf_counter() - sent[0])
"""

COUNTER = """
    import threading, time
    import antiphon

    engine = antiphon.Engine({config}batcher={{"max_concurrent": 8}})
    stop = threading.Event()

    def ask(number):
        while not stop.is_set():
            engine.process(f"Hello {{number}}, where is my order?", cache="bypass")

    def speed():
        count, until = 0, time.perf_counter() + 1
        while time.perf_counter() < until:
            for _ in range(1000):
                count += 1
        return count

    alone = [speed() for _ in range(3)]
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    beside = [speed() for _ in range(5)]
    stop.set()
    print(sorted(beside)[2] / sorted(alone)[1])
"""

GROWTH = """
    import os
    import antiphon

    def rss():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    engine = antiphon.Engine(cache={{"max_entries": 100}})
    def call(number):
        engine.analyze("Where is my order?")
        engine.process(f"Hello {{number % 50}}", max_tokens=1)
    for number in range(2000):
        call(number)
    before = rss()
    for number in range({count} // 2):
        call(number)
    print((rss() - before) / 2**20)
"""


def run(program: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="how many calls a process grows in")
    parser.add_argument("--interrupts", type=int, default=100, help="how often Ctrl-C is pressed")
    arguments = parser.parse_args()
    # A shell starts what it runs in the background with Ctrl-C ignored, and so would be what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    imports, opens = zip(*(run(OPENING) for _ in range(5)))
    waits = sorted(run(INTERRUPTS.format(count=arguments.interrupts)))
    table(
        [
            ("import", f"{statistics.median(imports) * 1000:.0f} ms"),
            ("open", f"{statistics.median(opens) * 1000:.0f} ms"),
            ("Ctrl-C, median", f"{statistics.median(waits) * 1000:.0f} ms"),
            ("Ctrl-C, p99", f"{waits[len(waits) * 99 // 100] * 1000:.0f} ms"),
            ("counter beside 64 threads, threads=1", f"{run(COUNTER.format(config='threads=1, '))[0]:.0%}"),
            ("counter beside 64 threads, default", f"{run(COUNTER.format(config=''))[0]:.0%}"),
            (f"growth in {arguments.calls} calls", f"{run(GROWTH.format(count=arguments.calls))[0]:.1f} MiB"),
        ]
    )


if __name__ == "__main__":
    main()
