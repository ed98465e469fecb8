"""What the figures mean: each module makes a report of one lab's figures and measures nothing."""
