"""Worker pools with a client that the parent has made and used. Arguments: the endpoint, how workers start."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import aisfast

NAMES = [f"o{i}" for i in range(20)]
DATA = [bytes([i]) * 5000 for i in range(20)]
WAYS = ["get", "stream", "fetch", "items", "pipeline", "fails"]
client = None  # a forked worker has the parent's


def take(given, way):
    """In a worker: what it got, and who it is."""
    mine = given or client
    bucket = mine.bucket("nowhere" if way == "fails" else "b")
    batch = mine.batch(NAMES, bucket=bucket)
    if way == "get":
        got = [data for _, data in batch.get()]
    elif way == "pipeline":
        got = [bytes(item) for columns in mine.pipeline([batch]) for item in columns]
    elif way == "stream":
        got = [bytes(item) for item in batch.stream()]
    else:  # Columns, and Items, that the parent gets as pickles
        got = batch.fetch() if way != "items" else list(batch.stream())
    return got, os.getpid()


def check(results):
    for got, pid in results:
        assert [bytes(item) for item in got] == DATA
        assert pid != os.getpid()


def main(endpoint, method):
    global client
    client = aisfast.Client(endpoint)
    take(client, "stream")
    given = None if method == "fork" else client
    stream = client.batch(NAMES, bucket=client.bucket("b")).stream()
    begun = [next(stream)]
    context = multiprocessing.get_context(method)
    work = [(given, way) for way in WAYS[:-1] * 2]
    with context.Pool(2) as pool:
        check(pool.starmap(take, work, chunksize=1))
        try:
            pool.apply(take, (given, "fails"))
        except aisfast.ErrBckNotFound as error:
            print(error.process, error.status_code, error.req.method)
        pool.close()
        pool.join()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        check(executor.map(take, *zip(*work, strict=True)))
        told = executor.submit(take, given, "fails").exception()
        assert isinstance(told, aisfast.ErrBckNotFound)
        assert "nowhere" in told.message
    assert [bytes(item) for item in (*begun, *stream)] == DATA
    check([(take(client, way)[0], 0) for way in WAYS[:-1]])
    client.close()
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
