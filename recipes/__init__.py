"""How the weights in this repository were made."""
