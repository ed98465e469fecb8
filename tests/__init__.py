"""The tests; `docs/architecture.md` says what they guard."""
