"""What is measured about Tokenmark itself: speed beside other libraries, its own share of a run, and memory."""
