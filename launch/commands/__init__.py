"""One file per command of `chiasma`: its options, and the function that it calls, imported only then."""
