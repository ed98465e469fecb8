"""Units: what operators write is read exactly, and what cannot be read says what can."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_ingest.units import exact_size, format_duration, format_size, parse_duration, parse_size

# Texts near the grammar, where the mistakes are.
NEAR = st.text(alphabet="0123456789.kKMmGiBbdhs -+_e\n٣", max_size=12)
ANYTHING = st.one_of(NEAR, st.text(max_size=12), st.integers(), st.floats(), st.none(), st.booleans(), st.binary())


class SizeTests(SynchronousTestCase):
    def test_units(self) -> None:
        """Every unit has its own factor, decimal and binary apart."""
        for text, size in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("2MB", 2_000_000),
            ("2MiB", 2 << 20),
            ("3GB", 3 * 10**9),
            ("3GiB", 3 << 30),
            ("1TB", 10**12),
            ("1TiB", 1 << 40),
            (" 64 KiB ", 65536),
        ]:
            self.assertEqual(parse_size(text), size)

    def test_number_is_bytes(self) -> None:
        """A bare number, as TOML gives it, is a number of bytes."""
        self.assertEqual(parse_size(1048576), 1048576)

    def test_ambiguous_unit_offers_both(self) -> None:
        """A unit that could mean two sizes is refused with both of them spelled out."""
        error = self.assertRaises(ValueError, parse_size, "64k")
        self.assertEqual(str(error), "'64k' is not a size: unknown unit 'k' (try \"64KiB\" or \"64kB\")")

    def test_case_counts(self) -> None:
        """A unit in the wrong case is refused with the right case offered."""
        error = self.assertRaises(ValueError, parse_size, "10mib")
        self.assertIn('(try "10MiB" or "10MB")', str(error))

    def test_refused(self) -> None:
        """Negative, fractional, signed, over-long, non-ASCII and foreign values are errors, not guesses."""
        for value in (-1, True, "-1", "+1", "1.5MiB", "", "KiB", "1 000", "1_000", "1e3", "٣", "9" * 19, "64KiB\0"):
            self.assertRaises(ValueError, parse_size, value)

    @given(st.integers(0, 10**18 - 1))
    def test_exact_round_trip(self, size: int) -> None:
        """What `exact_size` writes is read back as the same number of bytes."""
        self.assertEqual(parse_size(exact_size(size)), size)

    @given(st.integers(0, 999_999), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
    def test_whole_binary_round_trip(self, number: int, unit: str) -> None:
        """A whole number below 1024 of a binary unit loses nothing in `format_size`."""
        size = parse_size(f"{number % 1024}{unit}")
        self.assertEqual(parse_size(format_size(size)), size)

    def test_rounded_for_reading(self) -> None:
        """`format_size` gives one decimal where the unit does not divide the size."""
        self.assertEqual([format_size(size) for size in (1000, 1536, 1024)], ["1000B", "1.5KiB", "1KiB"])

    @given(ANYTHING)
    def test_only_value_errors(self, value: object) -> None:
        """No input makes anything but a size of zero or more, or a `ValueError` of one line."""
        try:
            size = parse_size(value)  # type: ignore[arg-type]
        except ValueError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
        else:
            self.assertIs(type(size), int)
            self.assertTrue(size >= 0)


class DurationTests(SynchronousTestCase):
    def test_units(self) -> None:
        """Every unit has its own factor, and parts add up."""
        for text, seconds in [
            ("250ms", 0.25),
            ("5s", 5.0),
            ("1.5s", 1.5),
            ("5m", 300.0),
            ("2h", 7200.0),
            ("1d", 86400.0),
            ("1h30m", 5400.0),
            ("1m500ms", 60.5),
            (" 5m ", 300.0),
        ]:
            self.assertEqual(parse_duration(text), seconds)

    def test_bare_number_is_refused(self) -> None:
        """A number without a unit is refused, from a flag or from TOML, and a form that works is offered."""
        for value in ("5", 5, 5.0):
            error = self.assertRaises(ValueError, parse_duration, value)
            self.assertEqual(str(error), f'{value!r} is not a duration (try "5m", "300s" or "250ms")')

    def test_refused(self) -> None:
        """Signs, foreign units, bare dots, inner spaces and other types are errors, not guesses."""
        for value in ("", "-5s", "+5s", "5M", "5 m", "1h 30m", ".5s", "5.s", "1e3s", "inf", "nan", "5min", "٣s", True):
            self.assertRaises(ValueError, parse_duration, value)

    @given(st.integers(0, 10**12 - 1))
    def test_round_trip_of_seconds(self, seconds: int) -> None:
        """Whole seconds, however many, are read back as they were written."""
        self.assertEqual(parse_duration(format_duration(seconds)), float(seconds))

    @given(st.integers(0, 10**12))
    def test_round_trip_of_microseconds(self, microseconds: int) -> None:
        """Any duration in whole microseconds is read back to within the rounding of floats."""
        seconds = microseconds / 1e6
        self.assertAlmostEqual(parse_duration(format_duration(seconds)), seconds, delta=1e-9 * max(1.0, seconds))

    def test_written_in_the_largest_unit(self) -> None:
        """A duration is written in the largest unit that divides it, without needless zeros."""
        written = [format_duration(seconds) for seconds in (0, 0.25, 1.5, 90, 300, 7200, 86400, 1234567)]
        self.assertEqual(written, ["0s", "250ms", "1.5s", "90s", "5m", "2h", "1d", "1234567s"])

    @given(ANYTHING)
    def test_only_value_errors(self, value: object) -> None:
        """No input makes anything but a duration of zero or more, or a `ValueError` of one line."""
        try:
            seconds = parse_duration(value)  # type: ignore[arg-type]
        except ValueError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
        else:
            self.assertTrue(0 <= seconds < float("inf"))
