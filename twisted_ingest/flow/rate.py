"""
How fast a peer may send: token buckets that answer with a time to wait, and a bounded table of them by peer.

Pure arithmetic on times given by the caller. A limit of this kind never drops anything: whoever is over it is not
read from until the time is up.
"""

from collections import OrderedDict

from twisted_ingest.units import Rate

PEERS_REMEMBERED = 10_000
"""Peers whose rate is kept at a time, the one heard of longest ago forgotten first: a flood of addresses must not
grow the process. A bucket takes about 200 B."""


class TokenBucket:
    """Allows ``rate`` a second on average, and one second's worth (one at least) at once."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = max(1.0, rate)
        self._at = now

    def take(self, amount: int, now: float) -> float:
        """Take what was sent already, on credit where it must be; give the seconds until the debt is paid."""
        self._refill(now)
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def take_one(self, now: float) -> bool:
        """Take one if there is one; says whether there was."""
        self._refill(now)
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now


class PeerBuckets:
    """The buckets of peers, by host, `PEERS_REMEMBERED` at most."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, host: str, now: float) -> TokenBucket:
        """Give the bucket of a host, made on first use."""
        bucket = self._buckets.get(host)
        if bucket is None:
            bucket = self._buckets[host] = TokenBucket(self.rate, now)
            if len(self._buckets) > PEERS_REMEMBERED:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(host)
        return bucket


class Meter:
    """One rate that a connection is held to; connections of one peer may share the bucket."""

    __slots__ = ("_bucket", "_is_of_bytes")

    def __init__(self, bucket: TokenBucket, rate: Rate) -> None:
        self._bucket = bucket
        self._is_of_bytes = rate.is_of_bytes

    def charge(self, size: int, records: int, now: float) -> float:
        """Take a chunk of ``size`` bytes that completed so many records; give the seconds to wait."""
        return self._bucket.take(size if self._is_of_bytes else records, now)
