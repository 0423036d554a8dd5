"""What a call cost, counted; `client.stats` adds up all of a client's calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stats:
    """Counts of one call, or of all calls of a client.

    Attributes:
        requests: GetBatch requests sent to the endpoint.
        members: Entries delivered, missing ones included.
        misses: Entries the server reported missing.
        payload_bytes: Bytes of payload delivered.
        wire_bytes: Bytes read from sockets, response heads not included.
        bytes_copied: Payload bytes that were copied after they were received.
        reads: Reads of answers' bodies.
        redirects: Redirects followed.
        resumes: Answers that ended too soon, and whose rest was asked for again.
        retries: Requests that failed and were sent again.
        singles: Entries, or sizes of objects, got by REST calls of their own.
        reconnects: Kept connections that had died and were replaced.
        connections: Connections opened.
        throttled: Answers with status 429.
        tail_entries: Entries repeated behind the last one, so that it comes sooner; see `Policy.tail`.
        tail_bytes: Bytes of the archive they take.
        put_off: Answers of a pipeline that were closed, or forgotten, for lack of room, and asked for again.
        targets: Most targets the cluster was seen to have.
        unclean_ends: Answers whose last entry was followed by something wrong; known when their drain has ended.
        wall: Seconds from the request to the last entry.
        wait: Seconds of it spent waiting for the network.
    """

    requests: int = 0
    members: int = 0
    misses: int = 0
    payload_bytes: int = 0
    wire_bytes: int = 0
    bytes_copied: int = 0
    reads: int = 0
    redirects: int = 0
    resumes: int = 0
    retries: int = 0
    singles: int = 0
    reconnects: int = 0
    connections: int = 0
    throttled: int = 0
    tail_entries: int = 0
    tail_bytes: int = 0
    put_off: int = 0
    targets: int = 0
    unclean_ends: int = 0
    wall: float = 0.0
    wait: float = 0.0

    def add(self, other: Stats) -> None:
        """Count another call in. (Spelled out: a loop over the names costs as much as a small batch's decoding.)"""
        self.requests += other.requests
        self.members += other.members
        self.misses += other.misses
        self.payload_bytes += other.payload_bytes
        self.wire_bytes += other.wire_bytes
        self.bytes_copied += other.bytes_copied
        self.reads += other.reads
        self.redirects += other.redirects
        self.resumes += other.resumes
        self.retries += other.retries
        self.singles += other.singles
        self.reconnects += other.reconnects
        self.connections += other.connections
        self.throttled += other.throttled
        self.tail_entries += other.tail_entries
        self.tail_bytes += other.tail_bytes
        self.put_off += other.put_off
        self.targets = max(self.targets, other.targets)
        self.unclean_ends += other.unclean_ends
        self.wall += other.wall
        self.wait += other.wait
