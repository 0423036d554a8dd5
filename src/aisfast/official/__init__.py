"""The installed official SDK (`aistore`) with our path under its batches. `aisfast.accelerate` is the way in.

Law: what is not known here is left to the official code. A version or shape that is not is refused as a whole; a
client, an entry or an argument that is not goes the official way alone.
"""
