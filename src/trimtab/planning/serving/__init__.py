"""`plan serve`: what a service takes under given traffic."""
