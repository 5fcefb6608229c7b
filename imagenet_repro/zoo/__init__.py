"""Published facts about networks and the challenge as CSV, sizes of networks, and the counting of operations."""
