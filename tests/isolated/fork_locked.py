"""A fork while another thread is inside the client: the child must not wait for a lock that nobody will release."""

import os
import sys
import threading
import warnings

import aisfast

warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this is about
client = aisfast.Client(sys.argv[1])


def fetch():
    return [len(item) for item in client.batch(["a", "b"], bucket=client.bucket("b")).fetch()]


assert fetch() == [5, 8_000_000]
held, go_on = threading.Event(), threading.Event()


def hold():
    with client.transport._lock:
        held.set()
        go_on.wait()


thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    assert fetch() == [5, 8_000_000]
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
go_on.set()
thread.join()
assert fetch() == [5, 8_000_000]
client.close()
