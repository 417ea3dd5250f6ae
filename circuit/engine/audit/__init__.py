"""`circuit fsck`: whether a live database holds what Circuit promises, and which rows break it.

`inspection` reads page by page; `replay` works out from a case's history what its rows must be; one file for each group
of invariants compares. The invariants I1 to I10 are those of `docs/explanation/promises.md`.
"""
