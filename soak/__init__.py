"""Everything at once, at low intensity, for as long as asked."""
