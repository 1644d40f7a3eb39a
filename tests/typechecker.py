"""The checker that holds the package to its annotations while the tests run: beartype, with the rule of
PEP 484 that an int is a float, too."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
