"""The proofs: what can be said of a net before it runs, and how it is shown.

Everything here works on one small kind of net, `PlaceNet`, to which workflows and PNML files are brought alike.
"""
