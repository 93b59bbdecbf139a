"""The nouns that travel between the packages: configuration records, targets, student outputs.

Shape letters, used as suffixes throughout: B batch, C classes, H W teacher grid, P = H*W positions,
N patch tokens, D width, S samples.
"""
