"""How batches move on, and how pressure moves back: ledger, watermark, budget, lane, intake."""
