"""The committed run, repeated: the command that does it and compares, and a record of each time that somebody did."""
