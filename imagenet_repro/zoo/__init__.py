"""Published facts about the networks and the challenge, model sizes, and the counting of operations."""
