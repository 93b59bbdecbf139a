"""Everything that a command or a notebook asks for: a verb to a file, a typed request in, a typed result out.

The modules are light: what a verb needs (torch, timm, zarr) is imported when it runs.
"""
