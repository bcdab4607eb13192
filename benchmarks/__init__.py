"""What is measured about Tokenmark itself: speed beside other libraries, in one run on one machine."""
