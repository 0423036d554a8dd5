"""A batch, one in a child, one more here; and a stream that goes on over the fork. Argument: the endpoint."""

import os
import sys

import aisfast

client = aisfast.Client(sys.argv[1])


def batch():
    return client.batch(["a", "b"], bucket=client.bucket("b"))


def check(items, who):
    assert [(item.name, len(item)) for item in items] == [("a", 5), ("b", 8_000_000)]
    print(who, flush=True)


check(batch().fetch(), "parent")
stream = batch().stream()
items = [next(stream)]
child = os.fork()
if child == 0:
    stream.close()  # the child's copies only
    del stream
    check(batch().fetch(), "child")
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
items += stream
check(items, "stream")
check(batch().fetch(), "parent")
client.close()
