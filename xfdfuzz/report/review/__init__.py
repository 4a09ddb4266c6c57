"""The review of a series: what it says, for people and as JSON, and as a mail."""
