"""
Hold a file that a server wrote against what was sent: what ``verify.c`` does, slower.

    python verify.py -c CONNECTIONS -n LINES -s SIZE -f FILLER [-j] FILE
"""

import argparse
import json
from dataclasses import asdict, dataclass

from lines import CONNECTION_AT, FILLER_AT, NUMBER_AT, line

SHOWN = 10


@dataclass
class Fate:
    """What became of one connection's lines."""

    connection: int
    missing: int
    doubled: int = 0
    torn: int = 0
    reordered: int = 0
    highest: int = 0


class Check:
    """The lines that were seen, and those that nobody sent."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        with open(chosen.filler, "rb") as stream:
            self.filler = stream.read()
        self.fates = [Fate(number, chosen.lines) for number in range(chosen.connections)]
        self.seen = bytearray(chosen.connections * chosen.lines)
        self.found = self.stray = 0

    def read(self, path: str) -> None:
        """Look at every line of the file."""
        with open(path, "rb") as stream:
            for text in stream:
                self.found += 1
                if not text.endswith(b"\n"):
                    self.stray += 1  # nothing ends it, so it is not what was sent
                else:
                    self.look(message_of(text) if self.chosen.json else text[:-1])

    def look(self, text: bytes) -> None:
        """Look at one line without its LF."""
        digits = text[CONNECTION_AT : NUMBER_AT - 1], text[NUMBER_AT : FILLER_AT - 1]
        connection, number = (int(word) if word.isdigit() else -1 for word in digits)
        if not (0 <= connection < self.chosen.connections and 0 <= number < self.chosen.lines):
            self.stray += 1
        elif text == line(self.filler, connection, number, self.chosen.size):
            self.arrived(self.fates[connection], number)
        else:
            self.fates[connection].torn += 1

    def arrived(self, fate: Fate, number: int) -> None:
        """Count a line that is as it was sent."""
        place = fate.connection * self.chosen.lines + number
        if self.seen[place]:
            fate.doubled += 1
            return
        self.seen[place] = 1
        fate.missing -= 1
        fate.reordered += number < fate.highest
        fate.highest = max(fate.highest, number)

    def report(self) -> dict[str, object]:
        """Give the sums, and the first connections that something happened to."""
        keys = ("missing", "doubled", "torn", "reordered")
        sums = {key: sum(getattr(fate, key) for fate in self.fates) for key in keys}
        hit = [asdict(fate) for fate in self.fates if any(getattr(fate, key) for key in keys)][:SHOWN]
        for fate in hit:
            del fate["highest"]
        good = self.chosen.connections * self.chosen.lines - sums["missing"]
        sums["torn"] += self.stray
        return {"connections": hit, "lines": self.found, "good": good, **sums}


def message_of(text: bytes) -> bytes:
    """Give the message of a JSON object; nothing, when it has none."""
    try:
        return str(json.loads(text)["message"]).encode()
    except (ValueError, KeyError, TypeError):
        return b""


def main() -> int:
    """Check, and print one JSON object."""
    parser = argparse.ArgumentParser()
    for flag, name in (("-c", "connections"), ("-n", "lines"), ("-s", "size")):
        parser.add_argument(flag, dest=name, type=int, required=True)
    parser.add_argument("-f", dest="filler", required=True)
    parser.add_argument("-j", dest="json", action="store_true")
    parser.add_argument("file")
    chosen = parser.parse_args()
    check = Check(chosen)
    check.read(chosen.file)
    report = check.report()
    print(json.dumps(report))
    return int(any(report[key] for key in ("missing", "doubled", "torn", "reordered")))


if __name__ == "__main__":
    raise SystemExit(main())
