"""Who is compared: each peer runs a case's own numbers and weights."""
