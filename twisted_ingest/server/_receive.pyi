def receive(
    memory: bytearray,
    begin: int,
    requests: list[tuple[int, bytes | bytearray, int, int, int]],
    least: int,
    views_from: int,
    /,
) -> list[int | tuple[int, tuple[bytes | int, int, int], bytes]]: ...
def compact(memory: bytearray, begin: int, end: int, stop: int, limit: int, evidence: bool, /) -> int: ...
def ordinary(partial: bytes | bytearray, data: bytes | memoryview, limit: int, look: int, /) -> int: ...
