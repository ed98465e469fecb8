"""One model of all settings, filled from flags and TOML, with errors that say where they stand."""
