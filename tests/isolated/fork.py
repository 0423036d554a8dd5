"""One batch, then one in a child of this process, then another one here. Argument: the endpoint."""

import os
import sys

import aisfast

client = aisfast.Client(sys.argv[1])


def fetch(who):
    batch = client.batch(["a", "b"], bucket=client.bucket("b"))
    assert [item.tobytes() for item in batch.fetch()] == [b"first", b"last"]
    print(who, flush=True)


fetch("parent")
child = os.fork()
if child == 0:
    fetch("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
fetch("parent")
client.close()
