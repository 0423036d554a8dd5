"""`aisfast bench`: what getting objects costs, here, from this cluster, in each way there is.

Laws: every way gets the same objects, and the same bytes of them, which is seen to before anything is timed. All ways
run by turns, in slices of seconds, in an order drawn anew for each round, so that what else the machine does meets all
of them. What is timed runs in processes of their own, which do nothing else; this one only adds up.
"""

from aisfast.bench.harness import Options, run

__all__ = ["Options", "run"]
