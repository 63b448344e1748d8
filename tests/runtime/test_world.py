"""How a process of several ends."""

import subprocess
import sys

CODE = """
import atexit, threading, time
from segctl.runtime.world import end_process
atexit.register(lambda: print("handler"))
threading.Thread(target=lambda: (time.sleep(0.3), print("thread"))).start()
print("work", end=" ")
end_process(3)
"""


def test_a_process_of_several_ends_with_its_threads_its_handlers_and_its_output():
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (3, "work thread\nhandler\n", "")
