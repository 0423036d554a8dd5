"""Every reference that a delivery takes is given back."""

import gc
from sys import getrefcount

import wire
from aisfast._delivery import Form
from aisfast._items import Item, MossOut
from delivering import deliver, delivery_of, entries_of

NAMES = ["a name of its own", "another one", "the third"]
OPAQUE = b"opaque bytes of their own"
ARCHPATH = "an archpath/of its own"
PAYLOADS = [b"x" * 1000, b"", b"y" * 200_000]
ENTRIES = [wire.Entry(name, payload, ARCHPATH) for name, payload in zip(NAMES, PAYLOADS, strict=True)]
RAW = wire.streaming(ENTRIES).raw
INTO = bytearray(300_000)



def asked():
    return entries_of([(name, "b", "ais", ARCHPATH, OPAQUE) for name in NAMES])


def counts():
    gc.collect()
    watched = [*NAMES, OPAQUE, ARCHPATH, None, b"", "", Item, MossOut, INTO]
    return [getrefcount(thing) for thing in watched]


def check(what, work):
    for _ in range(3):
        work()
    before = counts()
    for _ in range(100):
        work()
    grown = [after - then for then, after in zip(before, counts(), strict=True)]
    assert all(abs(n) < 20 for n in grown), (what, grown)
    print(what)


check("items", lambda: deliver(asked(), [RAW], Form.ITEMS))
check("pairs", lambda: deliver(asked(), [RAW], Form.PAIRS))
check("columns", lambda: deliver(asked(), [RAW], Form.COLUMNS))
check("errors", lambda: [deliver(asked(), [RAW[:n]], form) for form in Form for n in (700, 1400, 9000)])
check("into", lambda: (deliver(asked(), [RAW], Form.COLUMNS, into=INTO), delivery_of(asked(), Form.COLUMNS, into=INTO)))
