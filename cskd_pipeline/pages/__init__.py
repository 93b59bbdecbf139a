"""A page about stores and runs: what a sample of the labels says, how runs went, and what to conclude.

`sampled` and `examples` read labels, `run` reads run folders; `store_part` and `run_part` turn that into HTML with the
blocks of `markup` and the pictures of `plots`; `page` puts all of it into one file.
"""
